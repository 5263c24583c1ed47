"""The same topic drained without a store: fetched, interpreted, and taken by a sink that accepts everything."""

from __future__ import annotations

from collections.abc import Mapping

from billing.balance.codec import BalanceOp
from billing.lab.bench.arms.making import Parts
from billing.lab.bench.arms.task import Task
from billing.lab.bench.counter import Counter
from billing.settings import Topics
from billing.stream.kafka import kafka_group
from billing.stream.record import Position
from billing.stream.runner import Runner
from billing.stream.sink import Applied, ApplyAnswer, Batch, ClaimAnswer, Claimed, Owner, TendAnswer, Tended


class Accepting:
    """A sink without a store: counts usage records, answers at once."""

    def __init__(self, topics: Topics, task: Task, counter: Counter) -> None:
        self._topics = topics
        self._task = task
        self._counter = counter

    async def claim(self, partition: int, nonce: str) -> ClaimAnswer:
        positions = {
            self._topics.usage: Position(self._task.begin[partition], ""),
            self._topics.entries: Position(self._task.entries[partition], ""),
        }
        return Claimed(Owner(1, nonce), positions)

    async def apply(self, batch: Batch[BalanceOp]) -> ApplyAnswer:
        if batch.topic == self._topics.usage:
            self._counter.value += batch.to_offset - batch.from_offset
        return Applied(batch.to_offset)

    async def tend(
        self, owner: Owner, partition: int, *, at_end: bool, positions: Mapping[str, Position] | None = None
    ) -> TendAnswer:
        return Tended(open_holds=False)

    async def halt(self, owner: Owner, partition: int, reason: str) -> None:
        raise RuntimeError(reason)


async def run(parts: Parts, task: Task, counter: Counter) -> None:
    """Until it is killed."""
    topics, settings = parts.settings.topics, parts.settings
    plan = parts.plan(Accepting(topics, task, counter), "bench-decode")
    await Runner(plan, kafka_group(settings.kafka_bootstrap, plan.group, plan.topics)).run()
