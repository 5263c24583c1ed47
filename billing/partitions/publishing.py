"""A relay for the time of a migration: no other one may run while accounts move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from billing.ledger.database import Pool, fetchrow
from billing.ledger.history import Gate
from billing.ledger.outlet import KafkaOutlet
from billing.ledger.queries import query
from billing.ledger.relay import DRAIN_S, Relay
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.publisher import Publisher
from schemas.catalogue import Heartbeat, decode_catalogue

PATIENCE_S = 60.0  # without any progress
POLL_S = 0.2
HEARTBEAT_S = 1.0
TAIL = 64  # offsets of billing.tariffs that are looked through for its newest heartbeat


class Stuck(Exception):
    """Nothing has moved for PATIENCE_S: one line on what was waited for."""


@asynccontextmanager
async def relaying(settings: Settings, pool: Pool, reader: LogReader) -> AsyncIterator[None]:
    """A relay that runs as long as the block. Raises what the relay raised, if it did."""
    stop = asyncio.Event()
    async with Publisher(settings.kafka_bootstrap, client_id="billing-partitions-relay") as publisher:
        gate = Gate(pool, reader, settings.topics.entries)
        relay = Relay(pool, KafkaOutlet(publisher), settings, poll_s=POLL_S, heartbeat_s=HEARTBEAT_S, gate=gate)
        task = asyncio.create_task(relay.run(stop), name="relay")
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait({task}, timeout=2 * DRAIN_S)
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def until_published(settings: Settings, pool: Pool, reader: LogReader) -> None:
    """Until nothing waits to be published, and a heartbeat says that the homes of all accounts are told for the present
    number of partitions. Raises Stuck, LogAway, what asyncpg raises."""
    waiting, since = None, time.monotonic()
    while True:
        row = await fetchrow(pool, query("partitions.waiting"))
        assert row is not None
        now = tuple(row)
        if now == (None, None) and await _told(settings, reader):
            return
        if now != waiting:
            waiting, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE_S:
            raise Stuck("the ledger's entries and the catalogue are not published: `billing findings list`?")
        await asyncio.sleep(POLL_S)


async def _told(settings: Settings, reader: LogReader) -> bool:
    start, end = await reader.bounds(settings.topics.tariffs, 0)
    newest: Heartbeat | None = None
    async with aclosing(reader.read(settings.topics.tariffs, 0, max(start, end - TAIL), end)) as records:
        async for record in records:
            if record.value is not None and isinstance(message := decode_catalogue(record.value), Heartbeat):
                newest = message
    return newest is not None and newest.partitions == settings.partitions
