"""What a rebuild reads from the ledger, on one connection that also holds the lock against a second rebuild."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from billing.balance.records import NEVER_CHARGED, AccountRecord
from billing.ledger.database import Connection, connect
from billing.ledger.incarnations import Identity, mint_incarnation, read_identity
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.reconcile.holds import Session
from billing.stream.record import Position

PAGE = 5_000
STATEMENT_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class LedgerPosition:
    """Where the ledger stands in a partition of usage; `halted` is the reason, None when it is not."""

    position: Position
    log_time_ms: int
    halted: str | None


class LedgerSide:
    """Reads of a rebuild. Everything raises what asyncpg raises when the ledger is away."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self) -> bool:
        """Whether this is the only rebuild; held until the connection closes."""
        locked: bool = await self._connection.fetchval("select pg_try_advisory_lock($1, $2)", LOCK_SPACE, Lock.REBUILD)
        return locked

    async def identity(self) -> Identity | None:
        """The ledger's timeline, partition count and newest incarnation."""
        return await read_identity(self._connection)

    async def mint(self, *, above: int, reason: str) -> int:
        """A new incarnation."""
        return await mint_incarnation(self._connection, above=above, reason=reason)

    async def positions(self) -> dict[int, LedgerPosition]:
        """Where the ledger stands, by partition."""
        rows = await self._connection.fetch(query("reconcile.positions"), USAGE_TOPIC)
        return {
            row["partition"]: LedgerPosition(
                Position(row["next_offset"], row["fingerprint"]), row["log_time_ms"], row["halted"]
            )
            for row in rows
        }

    @asynccontextmanager
    async def one_moment(self) -> AsyncIterator[None]:
        """Everything read inside is of one moment."""
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            yield

    async def account_count(self, partition: int) -> int:
        """How many accounts the partition is the home of."""
        count: int = await self._connection.fetchval(query("reconcile.account_count"), partition)
        return count

    async def account_pages(self, partition: int) -> AsyncIterator[dict[str, AccountRecord]]:
        """The partition's accounts, without holds."""
        after = ""
        while rows := await self._connection.fetch(query("reconcile.accounts_page"), partition, after, PAGE):
            yield {row["id"]: _account(row) for row in rows}
            after = rows[-1]["id"]

    async def settled_pages(
        self, partition: int, below_offset: int, since_ms: int
    ) -> AsyncIterator[list[tuple[Session, int]]]:
        """Sessions settled below an offset by records of `since_ms` or later, with their records' log times (ms).
        Settled usage never changes, so this needs no common moment with the accounts."""
        async with self._connection.transaction(readonly=True):
            cursor = await self._connection.cursor(query("reconcile.settled_since"), partition, below_offset, since_ms)
            while rows := await cursor.fetch(PAGE):
                yield [((row["kind"], row["account_id"], row["session_id"]), row["log_time_ms"]) for row in rows]

    async def settled_of(self, below_offset: int, sessions: Collection[Session]) -> set[Session]:
        """Which of these sessions, all of one partition, were settled below an offset."""
        columns = [list(column) for column in zip(*sessions, strict=True)] or [[], [], []]
        rows = await self._connection.fetch(query("reconcile.settled_of"), below_offset, *columns)
        return {(row["kind"], row["account_id"], row["session_id"]) for row in rows}


@asynccontextmanager
async def open_ledger_side(dsn: str) -> AsyncIterator[LedgerSide]:
    """Connected until the end of the block."""
    connection = await connect(dsn, command_timeout_s=STATEMENT_TIMEOUT_S, application_name="billing-rebuild")
    try:
        yield LedgerSide(connection)
    finally:
        await connection.close(timeout=5)


def _account(row: Any) -> AccountRecord:
    last = row["last_charged_offset"]
    return AccountRecord(
        currency=row["currency"],
        credit=row["credit_micros"],
        used=row["used_micros"],
        held=0,
        credit_limit=row["credit_limit_micros"],
        recharge_below=row["recharge_below_micros"],
        excluded=row["excluded_micros"],
        ledger_seq=row["ledger_seq"],
        last_charge_offset=NEVER_CHARGED if last is None else last,
        status=row["status"],
    )
