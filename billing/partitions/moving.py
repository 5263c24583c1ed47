"""The one transaction in which accounts move: all of it or nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from billing.ledger.database import Connection, RollBack
from billing.ledger.findings import NewFinding, record
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.migrate import SIGNALS_TOPIC, USAGE_TOPIC
from billing.ledger.queries import query
from billing.usage.partitioner import home_partition

TIMEOUT_S = 1800.0
CHUNK = 10_000
RELAY_TRIES, RELAY_PAUSE_S = 25, 0.2


@dataclass(frozen=True, slots=True)
class Order:
    """From and to how many partitions, by whom and why. `starts` are the first offsets of usage.events and
    billing.signals (logical names) in partitions that are new to the ledger."""

    from_: int
    to: int
    author: str
    reason: str
    starts: Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Moved:
    """How many accounts have another home now."""

    accounts: int


@dataclass(frozen=True, slots=True)
class NotMoved:
    """Why nothing was changed."""

    reason: str


async def move_accounts(connection: Connection, order: Order) -> Moved | NotMoved:
    """Accounts to their partitions among `order.to`, positions for the new ones, what followers of the catalogue need.
    As the ledger's owner, when everything in the log is settled. Raises what asyncpg raises."""
    try:
        async with connection.transaction():
            await connection.execute(f"set local statement_timeout = '{int(TIMEOUT_S)}s'")
            return await _move(connection, order)
    except RollBack as rolled_back:
        refused: NotMoved = rolled_back.answer
        return refused


async def _move(connection: Connection, order: Order) -> Moved:
    await _without_relays(connection)
    rows = await connection.fetch(query("partitions.lock_positions"), timeout=TIMEOUT_S)
    _refuse_halted(rows)
    usage = {row["partition"]: row["next_offset"] for row in rows if row["topic"] == USAGE_TOPIC}
    migration = await connection.fetchval(
        query("partitions.begin"), order.from_, order.to, order.author, order.reason, json.dumps(usage)
    )
    await connection.execute(query("partitions.fence"))
    log_time_ms = max((row["log_time_ms"] for row in rows if row["topic"] == USAGE_TOPIC), default=0)
    for topic in (USAGE_TOPIC, SIGNALS_TOPIC):
        await _add_positions(connection, topic, order, log_time_ms if topic == USAGE_TOPIC else 0)
    moving = await _collect(connection, order.to)
    await connection.execute(query("partitions.move"), migration, timeout=TIMEOUT_S)
    await connection.execute(query("partitions.announce"), migration, timeout=TIMEOUT_S)
    await connection.execute(query("partitions.move_to"), order.to)
    return Moved(moving)


async def _without_relays(connection: Connection) -> None:
    """Ours has just gone, but its lock may take a moment to follow."""
    for _ in range(RELAY_TRIES):
        if await connection.fetchval(query("partitions.no_relay"), LOCK_SPACE, Lock.RELAY_MEMBER):
            return
        await asyncio.sleep(RELAY_PAUSE_S)
    raise RollBack(NotMoved("a relay is running: stop it"))


def _refuse_halted(rows: list[asyncpg.Record]) -> None:
    for row in rows:
        if row["halted"] is not None:
            raise RollBack(NotMoved(f"{row['topic']}-{row['partition']} is halted: {row['halted']}"))


async def _add_positions(connection: Connection, topic: str, order: Order, log_time_ms: int) -> None:
    """From the beginning of each new partition on: what is there already was written for the new number. Records that
    retention removed before anybody could read them are recorded as lost (R9)."""
    new = range(order.from_, order.to)
    starts = [order.starts.get((topic, partition), 0) for partition in new]
    await connection.execute(query("partitions.add_positions"), topic, list(new), starts, log_time_ms)
    for partition, start in zip(new, starts, strict=True):
        if start and topic == USAGE_TOPIC:
            detail = {"lost_from": 0, "lost_to": start, "by": order.author, "why": order.reason}
            subject = f"{topic}:{partition}:0"
            await record(connection, NewFinding("records_lost", None, partition, "ledger", subject, detail))


async def _collect(connection: Connection, to: int) -> int:
    """Which accounts move; returns how many."""
    await connection.execute(query("partitions.create_moving"))
    count = 0
    cursor = await connection.cursor(query("partitions.homes"), timeout=TIMEOUT_S)
    while rows := await cursor.fetch(CHUNK, timeout=TIMEOUT_S):
        moving = [(row["id"], home) for row in rows if (home := home_partition(row["id"], to)) != row["home_partition"]]
        if moving:
            await connection.copy_records_to_table(
                "moving", schema_name="pg_temp", records=moving, columns=("account_id", "to_partition")
            )
        count += len(moving)
    await connection.execute("analyze pg_temp.moving")
    return count
