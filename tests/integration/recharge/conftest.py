"""A migrated ledger of the test's own, with a recharge store on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from recharge_support import Books

from billing.ledger.database import open_pool
from billing.ledger.migrate import Migrated, migrate
from billing.ledger.sink import PostgresSink
from billing.ledger.tariffs import Loaded, load_tariff
from billing.recharge.store import RechargeStore
from billing.settings import Settings
from schemas.catalogue import Rate

RATE = Rate(
    kind="call",
    direction="outbound",
    match="49",
    rate_micros=600_000,
    first_increment_seconds=60,
    next_increment_seconds=6,
    connect_fee_micros=0,
    minimum_charge_micros=0,
    description="Germany",
)


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[Books]:
    assert isinstance(await migrate(settings.owner_dsn, settings.partitions, settings.postgres_dsn), Migrated)
    pool = await open_pool(settings.owner_dsn, max_size=20)  # for what only a test does to a ledger
    runtime = await open_pool(settings.postgres_dsn, max_size=20)
    try:
        for plan, currency in (("basic", "USD"), ("yen", "JPY")):
            assert isinstance(await load_tariff(pool, plan, (RATE,), currency, author="tests"), Loaded)
        yield Books(pool, PostgresSink(runtime, settings), RechargeStore(runtime), settings.partitions)
    finally:
        pool.terminate()
        runtime.terminate()
