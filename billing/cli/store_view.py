"""A reader of balances to which a store that is not the ledger's is Unknown, where the ledger can be asked."""

from __future__ import annotations

import asyncio
from functools import partial

import asyncpg

from billing.balance.calls import Functions
from billing.balance.reader import BalanceReader
from billing.cli.common import ledger
from billing.ledger.accounts import show
from billing.ledger.database import lease
from billing.ledger.incarnations import Identity, read_identity
from billing.ledger.terms import NoSuchAccount
from billing.reconcile.health import expecting_reader
from billing.settings import Settings
from billing.usage.partitioner import home_partition

ASK_SECONDS = 2.0
_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


async def reader_of(settings: Settings, functions: Functions) -> BalanceReader:
    """Reads balances of any account. While PostgreSQL is away, whatever Redis says of itself is taken."""
    expected = await _expected(settings)
    if expected is None:
        return BalanceReader(functions, settings.topics, partial(home_partition, partitions=settings.partitions))
    return expecting_reader(functions, settings.topics, expected)


async def missing_in_ledger(settings: Settings, account_id: str) -> bool:
    """Is there certainly no such account? No, while PostgreSQL is away."""
    try:
        async with asyncio.timeout(ASK_SECONDS), ledger(settings) as pool:
            return isinstance(await show(pool, account_id), NoSuchAccount)
    except _AWAY:
        return False


async def _expected(settings: Settings) -> Identity | None:
    try:
        async with asyncio.timeout(ASK_SECONDS), ledger(settings) as pool, lease(pool) as connection:
            return await read_identity(connection)
    except _AWAY:
        return None
