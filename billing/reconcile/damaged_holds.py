"""Accounts with holds that another hand made unreadable, which their balances do not show."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

from billing.balance.reader import BalanceReader
from billing.ledger.database import Connection
from billing.reconcile.compare import Unknown
from billing.reconcile.look import Looker
from billing.reconcile.report import Compared

WAIT_S = 1.0


async def damaged_holds(
    connection: Connection, reader: BalanceReader, looker: Looker, partitions: int
) -> AsyncIterator[Compared]:
    """One look through all holds of the store. Raises what asyncpg raises."""
    for partition in range(partitions):
        async for accounts in reader.unreadable_holds(partition):
            look = await looker.closer(connection, partition, sorted(accounts), time.monotonic() + WAIT_S)
            if look.unknown is None:  # else the whole partition is, and nothing is said about any account (R1)
                for found in look.found:
                    yield replace(found, comparison=Unknown("unreadable"))
