"""What the ledger expects of the balance store, asked now and then: a store of another incarnation is Unknown."""

from __future__ import annotations

import asyncio

import asyncpg
import structlog

from billing.ledger.database import Pool, lease
from billing.ledger.incarnations import Identity, read_identity

log = structlog.get_logger(__name__)

INTERVAL_S = 2.0
DEADLINE_S = 2.0
_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class KnownIdentity:
    """`current` is what the ledger last said; None before its first answer. While PostgreSQL is away it stays: only
    a rebuild, which needs the ledger, changes it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.current: Identity | None = None
        self.away = ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._ask()
            await asyncio.sleep(INTERVAL_S)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S), lease(self._pool, timeout_s=DEADLINE_S) as connection:
                found = await read_identity(connection)
        except _AWAY as error:
            if not self.away:
                log.warning("ledger.away", error=type(error).__name__)
            self.away = type(error).__name__
        else:
            self.current, self.away = found or self.current, ""
