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
    migrated = await migrate(settings.owner_dsn, settings.partitions, settings.postgres_dsn)
    assert isinstance(migrated, Migrated)
    pool = await open_pool(settings.owner_dsn, max_size=20)
    runtime = await open_pool(settings.postgres_dsn, max_size=8)
    try:
        assert isinstance(await load_tariff(runtime, "basic", RATES, "USD", author=AUTHOR), Loaded)
        yield Ledger(settings, pool, PostgresSink(runtime, settings), runtime)
    finally:
        pool.terminate()
        runtime.terminate()
