"""What is halted, why, and whether the cause persists: looked at anew, in both books.

A halt is not lifted by wishing: the position must fit the log again. Where records are gone for good, or the log is
another one, the operator says what to do about them (see `lifting`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from operator import methodcaller
from typing import Literal, TypeAlias

import asyncpg

from billing.balance.calls import Functions
from billing.ledger.database import Pool, fetch, lease
from billing.ledger.history import RESTORED, forgotten
from billing.ledger.migrate import SIGNALS_TOPIC, USAGE_TOPIC
from billing.ledger.queries import query
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.record import Position
from billing.stream.sink import ReadOnly, Unavailable, Uninitialised
from billing.stream.verify import Mismatch, check_position

Book: TypeAlias = Literal["ledger", "store"]
LOG_TROUBLE = ("position", "record")
"""What the reasons of `billing.stream.verify` begin with."""


@dataclass(frozen=True, slots=True)
class Halt:
    """`topic` is the logical name; of the store both its topics are halted, and `topic` names the one that does not
    fit, if one does. `persists` is what is still wrong, None when nothing is."""

    book: Book
    topic: str
    partition: int
    reason: str
    since: datetime | None
    position: Position
    persists: str | None
    advice: str


@dataclass(frozen=True, slots=True)
class StoreAway:
    """The balance store could not be asked; the ledger's halts are complete."""

    reason: str


async def halts(
    pool: Pool, functions: Functions, reader: LogReader, settings: Settings
) -> tuple[list[Halt], StoreAway | None]:
    """Every halt of both books. Raises what asyncpg raises, LogAway."""
    found = [await ledger_halt(pool, reader, settings, row) for row in await fetch(pool, query("halts.halted"))]
    for partition in range(settings.partitions):
        seen = await store_halt(pool, functions, reader, settings, partition)
        if isinstance(seen, StoreAway):
            return found, seen
        if seen is not None:
            found.append(seen)
    return found, None


async def ledger_halt(pool: Pool, reader: LogReader, settings: Settings, row: asyncpg.Record) -> Halt:
    """One row of `halts.halted`, looked at anew."""
    topic, partition, reason = row["topic"], row["partition"], row["halted"]
    position = Position(row["next_offset"], row["fingerprint"])
    if reason.startswith(RESTORED):
        persists = await _still_forgotten(pool, reader, settings)
        advice = "`billing ledger restored`" if persists else "`billing halts lift` (of any partition: it lifts all)"
    else:
        persists = await _misfit(reader, physical(settings, topic), partition, position)
        advice = _ledger_advice(topic, persists)
    return Halt("ledger", topic, partition, reason, row["halted_at"], position, persists, advice)


def physical(settings: Settings, topic: str) -> str:
    """The deployment's name of a logical topic."""
    return settings.topics.usage if topic == USAGE_TOPIC else settings.topics.signals


async def _still_forgotten(pool: Pool, reader: LogReader, settings: Settings) -> str | None:
    async with lease(pool) as connection:
        for partition in range(settings.partitions):
            why = await forgotten(connection, reader, settings.topics.entries, partition)
            if why is not None:
                return why
    return None


async def _misfit(reader: LogReader, topic: str, partition: int, position: Position) -> str | None:
    verdict = await check_position(reader, topic, partition, position)
    return verdict.reason if isinstance(verdict, Mismatch) else None


def _ledger_advice(topic: str, persists: str | None) -> str:
    if persists is None:
        return "`billing halts lift`"
    if topic == SIGNALS_TOPIC:
        return "`billing halts lift --accept-loss`: signals that still hold are told again"
    if "below the log's start" in persists or "was removed" in persists:
        return "`billing halts lift --accept-loss`: the records are gone; then `billing rebuild`"
    return "`billing halts lift --replaced-from OFFSET`: the log is another one from there on; then `billing rebuild`"


async def store_halt(
    pool: Pool, functions: Functions, reader: LogReader, settings: Settings, partition: int
) -> Halt | StoreAway | None:
    """The store's halt of a partition, None when there is none."""
    names = ["halted", "halted_at", "incarnation", "timeline"]
    key = functions.keys.meta(partition)
    meta = await functions.at(key, methodcaller("hmget", key, names))
    if isinstance(meta, ReadOnly | Unavailable | Uninitialised):
        return StoreAway(meta.reason)
    reason, since, incarnation, timeline = ((value or b"").decode() for value in meta)
    if not reason:
        return None
    topic, position, persists = await _store_misfit(functions, reader, settings, partition, incarnation)
    if not reason.startswith(LOG_TROUBLE) and persists is None:
        topic, persists = "ledger.entries", await _entries_trouble(pool, reason, timeline)
    advice = "`billing halts lift`" if persists is None else "`billing rebuild`, once the ledger goes on"
    at = datetime.fromtimestamp(int(since), UTC) if since.isdigit() else None
    return Halt("store", topic, partition, reason, at, position, persists, advice)


async def _store_misfit(
    functions: Functions, reader: LogReader, settings: Settings, partition: int, incarnation: str
) -> tuple[str, Position, str | None]:
    names = ["usage_offset", "usage_fingerprint", "entries_offset", "entries_fingerprint"]
    key = functions.keys.data(partition, incarnation)[0]
    pos = await functions.at(key, methodcaller("hmget", key, names))
    if not isinstance(pos, list) or pos[0] is None or pos[2] is None:
        return USAGE_TOPIC, Position(0, ""), "the store's positions are lost"
    usage = Position(int(pos[0]), (pos[1] or b"").decode())
    entries = Position(int(pos[2]), (pos[3] or b"").decode())
    for name, topic, position in (
        (USAGE_TOPIC, settings.topics.usage, usage),
        ("ledger.entries", settings.topics.entries, entries),
    ):
        persists = await _misfit(reader, topic, partition, position)
        if persists is not None:
            return name, position, persists
    return USAGE_TOPIC, usage, None


async def _entries_trouble(pool: Pool, reason: str, timeline: str) -> str | None:
    """Timelines and malformed entries: the store goes on only where the next entry would be accepted."""
    if reason.startswith("timeline:"):
        async with lease(pool) as connection:
            ledger = await connection.fetchval("select timeline from ledger_meta")
        if ledger != timeline:
            return f"the store is of timeline {timeline}, the ledger of {ledger}"
        return None
    return "the entry is still there: a rebuilt store goes on behind it"
