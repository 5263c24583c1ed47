"""Publishing at a fixed rate whatever happens, and seeing when each record was applied.

Open loop: the schedule says when each record is meant to be sent, and goes on when Kafka or the consumer is slow. A
latency runs from that moment, so a stall is felt by every record that it held up (no coordinated omission). It ends
with the first look that sees the store's position behind the record, so it is up to one look too long, never too short.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from billing.lab.bench.mix import Line
from billing.lab.bench.results import Outcome
from billing.lab.bench.schedule import Schedule
from billing.lab.bench.stats import Burst, Sighting, latencies
from billing.lab.waiting import until
from schemas.common import CLOUDEVENTS_HEADERS

TICK_SECONDS = 0.01
"""What has come due is sent so often, as a producer with `linger.ms` 10 does."""

PATIENCE_SECONDS = 60.0

Look = Callable[[], Awaitable[Sequence[int]]]


async def publish_and_see(
    producer: AIOKafkaProducer,
    topic: str,
    lines: Sequence[Sequence[Line]],
    look: Look,
    *,
    per_second: float,
    look_every_seconds: float,
    skip_seconds: float,
) -> Outcome:
    """Send the lines of each partition, in turns, `per_second` in all; the first `skip_seconds` are not counted."""
    sender = _Sender(producer, topic, lines, per_second)
    watching = _Watcher(look, look_every_seconds)
    task = asyncio.create_task(watching.run())
    try:
        with collector_off():  # it would stop looks and sending for a tenth of a second at a time
            await sender.run()
            ends = await sender.ends()
            await until(
                lambda: watching.passed(ends) or task.done(), "all to be applied", timeout_seconds=PATIENCE_SECONDS
            )
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    found: list[float] = []
    for partition, bursts in enumerate(await sender.bursts()):
        counted = [burst for burst in bursts if burst.intended[0] >= sender.began + skip_seconds]
        found += latencies(counted, watching.sightings(partition))
    looks = watching.looks
    per_second_applied = len(found) / (looks[-1][0] - sender.began - skip_seconds)
    look_seconds = (looks[-1][0] - looks[0][0]) / max(1, len(looks) - 1)
    return Outcome(sorted(found), per_second_applied, look_seconds, sender.late_seconds)


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage is looked for; what there is now, never again."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Packed(NamedTuple):
    """A batch of the records from `begin` to before `after` of its partition, to be sent at a tick."""

    tick: int
    batch: BatchBuilder
    begin: int
    after: int


class _Sender:
    """Sends what is due at each tick, by partition. It is packed beforehand, a microsecond a record: producers have
    cores of their own elsewhere, here they would take them from what is measured."""

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, lines: Sequence[Sequence[Line]], per_second: float
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._schedule = Schedule(per_second, len(lines))
        self._waiting = [deque(self._packed(partition, each)) for partition, each in enumerate(lines)]
        self._sent: list[list[tuple[asyncio.Future[Any], int, int]]] = [[] for _ in lines]
        self.began = 0.0
        self.late_seconds = 0.0

    def _packed(self, partition: int, lines: Sequence[Line]) -> Iterator[_Packed]:
        """The partition's batches in order; a tick has more than one where its records do not fit."""
        headers = list(CLOUDEVENTS_HEADERS)
        at = 0
        for tick, due in self._schedule.ticks(partition, len(lines), TICK_SECONDS):
            while at < due:
                batch, begin = self._producer.create_batch(), at
                for line in lines[begin:due]:
                    if batch.append(timestamp=None, key=line.key, value=line.value, headers=headers) is None:
                        break
                    at += 1
                yield _Packed(tick, batch, begin, at)

    async def run(self) -> None:
        """Until everything is sent; after a late tick at once what is due by then."""
        self.began, tick = time.monotonic(), 0
        while any(self._waiting):
            tick += 1
            while (late := time.monotonic() - (self.began + tick * TICK_SECONDS)) < 0:  # noqa: ASYNC110 - timers are early
                await asyncio.sleep(-late)
            self.late_seconds = max(self.late_seconds, late)
            tick += int(late / TICK_SECONDS)
            while due := [partition for partition, each in enumerate(self._waiting) if each and each[0].tick <= tick]:
                for partition in due:  # one of each: the client sends no more of a partition at a time
                    await self._send(partition, self._waiting[partition].popleft())

    async def _send(self, partition: int, packed: _Packed) -> None:
        future = await self._producer.send_batch(packed.batch, self._topic, partition=partition)
        self._sent[partition].append((future, packed.begin, packed.after))

    async def ends(self) -> list[int]:
        """Where each partition ends, once its last batch is acknowledged."""
        ends = []
        for sent in self._sent:
            end = 0
            for future, begin, after in sent[-1:]:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    end = (await future).offset + after - begin
            ends.append(end)
        return ends

    async def bursts(self) -> list[list[Burst]]:
        """What was sent, by partition. Work enough to be done when nothing is looked at any more."""
        return [
            [
                Burst(
                    (await future).offset,
                    [self.began + self._schedule.due_s(partition, number) for number in range(begin, after)],
                )
                for future, begin, after in sent
            ]
            for partition, sent in enumerate(self._sent)
        ]


class _Watcher:
    """Looks at all positions again and again."""

    def __init__(self, look: Look, every_seconds: float) -> None:
        self._look = look
        self._every_seconds = every_seconds
        self.looks: list[tuple[float, Sequence[int]]] = []

    async def run(self) -> None:
        while True:
            begin = time.monotonic()
            positions = await self._look()
            self.looks.append((time.monotonic(), positions))  # seen when the answer is here
            await asyncio.sleep(max(0.0, begin + self._every_seconds - time.monotonic()))

    def passed(self, ends: Sequence[int]) -> bool:
        return bool(self.looks) and all(p >= end for p, end in zip(self.looks[-1][1], ends, strict=True))

    def sightings(self, partition: int) -> list[Sighting]:
        return [Sighting(at, positions[partition]) for at, positions in self.looks]
