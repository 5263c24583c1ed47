"""What a rebuild asks of the ledger beside its snapshot, on one connection that holds the lock against a second one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from billing.ledger.database import Connection, connect
from billing.ledger.incarnations import Identity, mint_incarnation, read_identity
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.queries import query
from billing.reconcile.holds import Session


class LedgerSide:
    """Everything raises what asyncpg raises when the ledger is away."""

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

    async def account_count(self) -> int:
        """How many accounts there are."""
        count: int = await self._connection.fetchval("select count(*) from accounts")
        return count

    async def settled_of(self, below_offset: int, sessions: Collection[Session]) -> set[Session]:
        """Which of these sessions, of accounts of one partition, were settled below an offset of it, or before their
        account moved there. What is settled never changes, so this may be asked later than the snapshot."""
        columns = [list(column) for column in zip(*sessions, strict=True)] or [[], [], []]
        rows = await self._connection.fetch(query("reconcile.settled_of"), below_offset, *columns)
        return {(row["kind"], row["account_id"], row["session_id"]) for row in rows}


@asynccontextmanager
async def open_ledger_side(dsn: str) -> AsyncIterator[LedgerSide]:
    """Connected until the end of the block."""
    connection = await connect(dsn, application_name="billing-rebuild")
    try:
        yield LedgerSide(connection)
    finally:
        await connection.close(timeout=5)
