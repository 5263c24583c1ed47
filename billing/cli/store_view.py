"""A reader of the balance store that knows which incarnation and timeline the ledger expects."""

from __future__ import annotations

from functools import partial

from billing.balance.calls import Functions
from billing.balance.reader import BalanceReader
from billing.settings import Settings
from billing.usage.partitioner import home_partition


async def reader_of(settings: Settings, functions: Functions) -> BalanceReader:
    """Reads balances of any account."""
    return BalanceReader(functions, settings.topics, partial(home_partition, partitions=settings.partitions))
