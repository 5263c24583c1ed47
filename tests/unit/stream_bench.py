"""What the tests of billing.stream share: a log, a group and a sink in memory, and runners over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from billing.stream.finished import Finished
from billing.stream.memory import MemoryLog
from billing.stream.memory_group import MemoryGroup, MemoryMembership
from billing.stream.memory_sink import Effect, Everything, MemorySink
from billing.stream.plan import Plan, Timings
from billing.stream.runner import Runner

FAST = Timings(
    idle_wait_seconds=0.01,
    tend_seconds=0.02,
    verify_seconds=0.1,
    tick_seconds=0.05,
    ends_seconds=0.01,
    ends_fresh_seconds=1.0,
    commit_seconds=0.05,
    horizon_deadline_seconds=0.05,
    catch_up_deadline_seconds=0.05,
    claim_limit_seconds=0.02,
    halted_seconds=0.05,
    confirm_seconds=0.01,
    revoke_seconds=0.1,
    drain_seconds=2.0,
    stalled_seconds=0.2,
)


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Wait until the condition holds; fails the test when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions are of many kinds, none has an event
            await asyncio.sleep(0.002)


class Bench:
    """One cluster and one store; `topics[0]` has priority."""

    def __init__(self, topics: Sequence[str] = ("usage",), partitions: int = 1) -> None:
        self.topics = tuple(topics)
        self.partitions = partitions
        self.log = MemoryLog({topic: partitions for topic in topics})
        self.group = MemoryGroup(self.log, partitions)
        self.sink = MemorySink(topics)
        self.members: list[MemoryMembership] = []
        self.interpreters: dict[str, Everything] = {topic: Everything() for topic in topics}

    def runner(self, **changes: Any) -> Runner[Effect]:
        plan = {
            "group": "bench",
            "topics": self.topics,
            "partitions": self.partitions,
            "sink": self.sink,
            "interpreters": self.interpreters,
            "reader": self.log,
            "timings": FAST,
            **changes,
        }
        return Runner(Plan(**plan), self._member)

    def _member(self) -> MemoryMembership:
        member = self.group.member()
        self.members.append(member)
        return member

    def append(self, count: int, *, topic: str = "usage", partition: int = 0) -> None:
        for _ in range(count):
            number = self.log._partitions[topic, partition].end
            self.log.append(topic, partition, b"%d" % number)

    def readable(self, partition: int = 0, topic: str = "usage") -> list[Effect]:
        """What must have been applied, exactly once and in order."""
        found = self.log.read(topic, partition, 0, 1_000_000)
        return [Effect(topic, partition, record.offset, record.value or b"") for record in found]

    def applied(self, partition: int = 0, topic: str = "usage") -> list[Effect]:
        return [effect for effect in self.sink.effects(partition) if effect.topic == topic]

    async def settled(self, partition: int = 0, topic: str = "usage") -> None:
        """Wait until the sink's position is the log's end, then compare every effect."""
        bounds = await self.log.bounds(topic, partition)
        await until(lambda: self.sink.position(topic, partition).offset >= bounds.end)
        assert self.applied(partition, topic) == self.readable(partition, topic)


@asynccontextmanager
async def running(runner: Runner[Effect]) -> AsyncIterator[asyncio.Task[Finished]]:
    """The runner in a task, drained at the end; yields the task."""
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        await runner.drain()
        await task
