"""The part of a rebuild that only the log knows: open holds, and where `ledger.entries` ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from billing.balance.records import HoldRecord
from billing.rating.catalogue import Catalogue
from billing.reconcile.holds import OpenHolds, Session
from billing.stream.kafka_reader import LogReader
from billing.stream.record import Position, Record, fingerprint
from billing.usage.classify import Classifier, NeedsHorizon
from billing.usage.ops import CALL_LEASE_MS, MESSAGE_LEASE_MS

LONGEST_LEASE_MS = max(CALL_LEASE_MS, MESSAGE_LEASE_MS)
_LOOK_BACK = 64  # offsets before the end that are looked through first for the last record
_PROGRESS_EVERY = 1_000


class CatalogueNotReady(Exception):
    """The catalogue in the log is not complete enough to price what the ledger has settled already: a record of
    billing.tariffs was lost, or the topics and the ledger are not of the same deployment."""


async def end_position(reader: LogReader, topic: str, partition: int) -> Position:
    """The log's last stable offset with the fingerprint of the record before it; "" where none is left. Raises
    LogAway."""
    start, end = await reader.bounds(topic, partition)
    first, look_back = end, _LOOK_BACK
    while first > start:
        first = max(start, end - look_back)
        last: Record | None = None
        async with aclosing(reader.read(topic, partition, first, end)) as records:
            async for record in records:
                last = record
        if last is not None:
            return Position(end, fingerprint(last))
        look_back *= 16  # a long hole: aborted transactions
    return Position(end, "")


async def read_catalogue(reader: LogReader, topic: str) -> Catalogue:
    """The catalogue as it stands in the log. Raises LogAway, MalformedMessage, CatalogueNotReady."""
    catalogue = Catalogue()
    start, end = await reader.bounds(topic, 0)
    async with aclosing(reader.read(topic, 0, start, end)) as records:
        async for record in records:
            catalogue.apply(record.value)
    if catalogue.conflict is not None:
        raise CatalogueNotReady(catalogue.conflict)
    return catalogue


async def replay_start(reader: LogReader, topic: str, partition: int, log_time_ms: int) -> int:
    """The offset from which on a record may have a hold that is open at `log_time_ms`. Raises LogAway."""
    return await reader.offset_for_time(topic, partition, log_time_ms - LONGEST_LEASE_MS)


async def holds_at(
    records: AsyncGenerator[Record], classifier: Classifier, log_time_ms: int, advanced: Callable[[int], None]
) -> Mapping[Session, HoldRecord]:
    """Holds that are open at `log_time_ms`, behind these records of one partition, as far as they say; the caller
    leaves out those of sessions that the ledger has settled. `advanced` is told each offset now and then. Raises
    LogAway, OutOfRange, CatalogueNotReady."""
    holds = OpenHolds()
    async with aclosing(records):
        async for record in records:
            verdict = classifier.classify(record)
            if isinstance(verdict, NeedsHorizon):
                raise CatalogueNotReady(f"no price yet for partition {record.partition}, offset {record.offset}")
            holds.take(verdict, record.timestamp)
            if record.offset % _PROGRESS_EVERY == 0:
                advanced(record.offset)
    return holds.open_at(log_time_ms)
