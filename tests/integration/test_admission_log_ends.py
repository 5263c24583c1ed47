"""The ends of the logs as admission reads them from Kafka, the time before its start included."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from billing.admission.lag import LogEnds
from billing.admission.log_ends import LogEndsReader
from billing.lab.waiting import until
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.publisher import Outgoing, Publisher
from billing.stream.record import Position
from billing.stream.topics import ensure_topics
from billing.usage.partitioner import home_partition

LIMIT_MS = 400


async def test_a_balance_that_was_behind_before_the_start_is_known_to_be(settings: Settings) -> None:
    await ensure_topics(settings)
    topics, home = settings.topics, home_partition("acme", settings.partitions)
    ends = LogEnds(LIMIT_MS)
    async with Publisher(settings.kafka_bootstrap, client_id="tests") as publisher:
        await publisher.publish([Outgoing(topics.usage, b"{}", b"acme", ())])
        await asyncio.sleep(1.5 * LIMIT_MS / 1000)
        async with LogReader(settings.kafka_bootstrap, client_id="tests") as reader:
            running = asyncio.create_task(LogEndsReader(reader, topics, settings.partitions, ends).run())
            at_start = {topics.usage: Position(0, ""), topics.entries: Position(0, "")}
            await until(lambda: _has(ends, home, at_start), "the ends")
            lag = ends.lag(home, at_start)
            assert lag is not None
            assert (lag.records, lag.age_ms) == (1, None)
            current = ends.lag(home, at_start | {topics.usage: Position(1, "")})
            assert current is not None
            assert current.records == 0
            await publisher.publish([Outgoing(topics.usage, b"{}", b"acme", ())])
            await until(lambda: (ends.lag(home, at_start) or lag).records == 2, "the new end")
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def _has(ends: LogEnds, home: int, positions: dict[str, Position]) -> bool:
    return getattr(ends.lag(home, positions), "records", 0) == 1
