"""Settling what is in the log, as post-flight does, up to its end: it cannot run itself once partitions were added."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors

from billing.ledger.database import Pool
from billing.ledger.plan import settlement_plan
from billing.ledger.snapshots import positions
from billing.partitions.publishing import PATIENCE_S, Stuck
from billing.settings import Settings
from billing.stream.catalogue import LiveCatalogue
from billing.stream.kafka import REQUEST_TIMEOUT_MS, KafkaMembership
from billing.stream.kafka_reader import LogReader
from billing.stream.lane import Lane, LaneEnded
from billing.stream.lane_state import State
from billing.stream.log import LogAway
from billing.usage.ops import UsageOp

POLL_S = 0.05
STOP_S = 10.0


class Halted(Exception):
    """A partition does not go on: one line on which and why."""


class _Assigned(KafkaMembership):
    """Given partitions, outside any group."""

    async def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Connect and stand at these offsets. Raises LogAway."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            isolation_level="read_committed",
            auto_offset_reset="none",
            enable_auto_commit=False,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        self._consumer = consumer
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1000):
                await consumer.start()
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            raise LogAway(f"cannot connect to {self._bootstrap}: {error or type(error).__name__}") from error
        consumer.assign(list(offsets))
        for pair, offset in offsets.items():
            consumer.seek(pair, offset)


async def settle_to_the_end(settings: Settings, pool: Pool, reader: LogReader) -> int:
    """Until the ledger has everything that was in usage.events at the call; a relay has to run. Returns how many
    offsets that was. Raises Halted, Stuck, LogAway, what asyncpg raises."""
    topic = settings.topics.usage
    at = {partition: found.position.offset for partition, found in (await positions(pool)).items()}
    found = await reader.ends([(topic, partition) for partition in at])
    ends = {partition: end for (_, partition), end in found.items()}
    behind = sum(max(0, end - at[partition]) for partition, end in ends.items())
    if behind:
        async with _lanes(settings, pool, reader, at) as lanes:
            await _until(lanes, ends)
    return behind


@asynccontextmanager
async def _lanes(
    settings: Settings, pool: Pool, reader: LogReader, at: Mapping[int, int]
) -> AsyncIterator[dict[int, tuple[Lane[UsageOp], asyncio.Task[LaneEnded]]]]:
    topics = settings.topics
    live = LiveCatalogue(reader, topics.tariffs)
    plan = settlement_plan(settings, pool, reader, live, group="partitions")
    log = _Assigned(settings.kafka_bootstrap, plan.group, plan.topics, client_id="billing-partitions")
    lanes: dict[int, tuple[Lane[UsageOp], asyncio.Task[LaneEnded]]] = {}
    async with live.following() as following:
        await live.ready(following)
        try:
            await log.assign({TopicPartition(topics.usage, partition): offset for partition, offset in at.items()})
            for partition in at:
                lane = Lane(plan, log, partition, _no_end)
                lanes[partition] = lane, asyncio.create_task(lane.run(), name=f"lane-{partition}")
            yield lanes
        finally:
            for lane, _ in lanes.values():
                lane.stop()
            if lanes:
                await asyncio.wait([task for _, task in lanes.values()], timeout=STOP_S)
            await log.leave()


async def _until(
    lanes: Mapping[int, tuple[Lane[UsageOp], asyncio.Task[LaneEnded]]], ends: Mapping[int, int]
) -> None:
    done, since = -1, time.monotonic()
    while True:
        at: dict[int, int] = {}
        for partition, (lane, task) in lanes.items():
            if task.done():
                raise Halted(f"partition {partition}: {task.result().reason}")
            if lane.state.state is State.HALTED:
                raise Halted(f"partition {partition} is halted: {lane.state.reason}; see `billing halts list`")
            at[partition] = next((position.offset for position in lane.state.positions.values()), 0)
        if all(at[partition] >= end for partition, end in ends.items()):
            return
        if sum(at.values()) != done:
            done, since = sum(at.values()), time.monotonic()
        if time.monotonic() - since > PATIENCE_S:
            waiting = sorted({str(lane.state.state) for lane, _ in lanes.values()})
            raise Stuck(f"the ledger does not take in what is left of usage.events (waiting: {', '.join(waiting)})")
        await asyncio.sleep(POLL_S)


def _no_end(topic: str, partition: int) -> None:
    """Nothing depends on the end here: no lease expires in the ledger."""
