"""What the ledger knows, of one moment: for deriving an account, and for rebuilding the balance store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from billing.balance.snapshot import AccountSnapshot, LedgerLagging, LedgerUnavailable
from billing.ledger.database import Connection, Pool, lease
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.ledger.trouble import Trouble, describe, trouble_of
from billing.stream.record import Position
from billing.usage.ops import SessionKind

NEVER_CHARGED = -1
DERIVE_DEADLINE_S = 5.0
CHUNK = 2000
CURSOR_TIMEOUT_S = 60.0


class LedgerReader:
    """`billing.balance.snapshot.LedgerView` over PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def derive(
        self, account: str, partition: int, below_offset: int, settled_since_ms: int
    ) -> AccountSnapshot | LedgerLagging | LedgerUnavailable:
        """The account's record as of usage `below_offset` of its home partition; a ledger that is away is an answer."""
        try:
            async with asyncio.timeout(DERIVE_DEADLINE_S):
                return await account_snapshot(self._pool, account, partition, below_offset, settled_since_ms)
        except LookupError as error:  # archived
            return LedgerUnavailable(describe(error))
        except Exception as error:
            if trouble_of(error) is Trouble.BUG:
                raise
            return LedgerUnavailable(describe(error))


async def account_snapshot(
    pool: Pool, account: str, partition: int, below_offset: int, settled_since_ms: int
) -> AccountSnapshot | LedgerLagging:
    """One account as of usage `below_offset`, in one REPEATABLE READ snapshot. Lagging: the ledger's usage position is
    below that, or it has no such account in this partition (yet)."""
    async with (
        lease(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        identity = await connection.fetchrow(query("snapshots.identity"))
        position = await connection.fetchrow(query("snapshots.position"), USAGE_TOPIC, partition)
        if identity is None or position is None or position["next_offset"] < below_offset:
            return LedgerLagging()
        row = await connection.fetchrow(query("snapshots.account"), account, partition)
        if row is None:
            return LedgerLagging()
        used_micros, last_offset = await _used_below(connection, account, row, below_offset)
        settled = await connection.fetch(query("snapshots.settled"), account, below_offset, settled_since_ms)
    return _snapshot(
        identity["timeline"], row, used_micros, last_offset, [(s["kind"], s["session_id"]) for s in settled]
    )


async def _used_below(
    connection: Connection, account: str, row: asyncpg.Record, below_offset: int
) -> tuple[int, int | None]:
    """The balance row says it when nothing was charged at or above `below_offset`; else the usage rows do."""
    last_offset = row["last_charged_offset"]
    if last_offset is None or last_offset < below_offset:
        return row["used_micros"], last_offset
    used = await connection.fetchrow(query("snapshots.used_below"), account, below_offset)
    assert used is not None  # an aggregate has one row
    if used["archived"]:
        raise LookupError(f"usage of account {account} at offset {below_offset} is archived: rebuild the balance store")
    return used["used_micros"], used["last_charged_offset"]


def _snapshot(
    timeline: str,
    row: asyncpg.Record,
    used_micros: int,
    last_offset: int | None,
    settled: Sequence[tuple[SessionKind, str]],
) -> AccountSnapshot:
    return AccountSnapshot(
        timeline=timeline,
        currency=row["currency"],
        credit_micros=row["credit_micros"],
        used_micros=used_micros,
        credit_limit_micros=row["credit_limit_micros"],
        recharge_below_micros=row["recharge_below_micros"],
        excluded_micros=row["excluded_micros"],
        ledger_seq=row["ledger_seq"],
        last_charge_offset=NEVER_CHARGED if last_offset is None else last_offset,
        status=row["status"],
        settled=settled,
    )


@dataclass(frozen=True, slots=True)
class PartitionPosition:
    """Where the ledger stands in a partition of usage.events; `log_time_ms` is that of the last record."""

    position: Position
    log_time_ms: int
    halted: str | None


@dataclass(frozen=True, slots=True)
class SettledSession:
    account: str
    kind: SessionKind
    session: str
    log_time_ms: int


class LedgerSnapshot:
    """All partitions at one moment. Valid inside `ledger_snapshot` only; one iteration at a time."""

    def __init__(self, connection: Connection, timeline: str, positions: dict[int, PartitionPosition]) -> None:
        self._connection = connection
        self.timeline = timeline
        self.positions = positions

    async def accounts(self, partition: int) -> AsyncIterator[list[tuple[str, AccountSnapshot]]]:
        """Every account of the partition with its id, in chunks, in id order; used up to the partition's position.
        `settled` is empty: see `settled_since`."""
        async for rows in self._chunks("snapshots.partition_accounts", partition):
            yield [
                (row["id"], _snapshot(self.timeline, row, row["used_micros"], row["last_charged_offset"], ()))
                for row in rows
            ]

    async def settled_since(self, partition: int, since_ms: int) -> AsyncIterator[list[SettledSession]]:
        """Every session of the partition settled at or after log time `since_ms`, in chunks, in no order."""
        async for rows in self._chunks("snapshots.partition_settled", partition, since_ms):
            yield [
                SettledSession(row["account_id"], row["kind"], row["session_id"], row["log_time_ms"]) for row in rows
            ]

    async def _chunks(self, name: str, *arguments: object) -> AsyncIterator[list[Any]]:
        cursor = await self._connection.cursor(query(name), *arguments, timeout=CURSOR_TIMEOUT_S)
        while rows := await cursor.fetch(CHUNK, timeout=CURSOR_TIMEOUT_S):
            yield rows


@asynccontextmanager
async def ledger_snapshot(pool: Pool) -> AsyncIterator[LedgerSnapshot]:
    """Everything at one moment, read through server-side cursors in one REPEATABLE READ transaction. Raises LookupError
    when the ledger is not migrated."""
    async with (
        lease(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        # the rebuild writes to the balance store between two fetches: that is no idle transaction
        await connection.execute("set local idle_in_transaction_session_timeout = '15min'")
        identity = await connection.fetchrow(query("snapshots.identity"))
        if identity is None:
            raise LookupError("the ledger has no timeline: run `billing migrate`")
        rows = await connection.fetch(query("snapshots.positions"), USAGE_TOPIC)
        yield LedgerSnapshot(connection, identity["timeline"], {row["partition"]: _position(row) for row in rows})


async def positions(pool: Pool) -> dict[int, PartitionPosition]:
    """Where the ledger stands in every partition of usage.events, now."""
    async with lease(pool) as connection:
        rows = await connection.fetch(query("snapshots.positions"), USAGE_TOPIC)
    return {row["partition"]: _position(row) for row in rows}


def _position(row: asyncpg.Record) -> PartitionPosition:
    return PartitionPosition(Position(row["next_offset"], row["fingerprint"]), row["log_time_ms"], row["halted"])
