"""A migrated ledger of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from ledger_support import AUTHOR, RATES, Ledger

from billing.ledger.database import open_pool
from billing.ledger.migrate import Migrated, migrate
from billing.ledger.sink import PostgresSink
from billing.ledger.tariffs import Loaded, load_tariff
from billing.settings import Settings


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    assert isinstance(await migrate(settings.postgres_dsn, settings.partitions), Migrated)
    pool = await open_pool(settings.postgres_dsn, max_size=20)
    try:
        assert isinstance(await load_tariff(pool, "basic", RATES, "USD", author=AUTHOR), Loaded)
        yield Ledger(settings, pool, PostgresSink(pool, settings))
    finally:
        pool.terminate()
