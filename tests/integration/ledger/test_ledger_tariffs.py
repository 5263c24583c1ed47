"""Tariff versions and plan assignments: effective dates, and the lead that both consumers rely on (S47)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import asyncpg
import msgspec
import pytest
from ledger_support import AUTHOR, RATES, Ledger

from billing.ledger.accounts import set_account
from billing.ledger.database import Pool
from billing.ledger.tariffs import AlreadyLoaded, Loaded, OtherCurrency, list_tariffs, load_tariff
from billing.ledger.terms import Changed, Changes, Invalid

DEARER = (msgspec.structs.replace(RATES[0], rate_micros=700_000),)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_the_first_version_is_from_the_beginning_and_a_repeat_is_no_version(ledger: Ledger) -> None:
    answer = await load_tariff(ledger.pool, "gold", RATES, "USD", author=AUTHOR, effective_ms=now_ms())
    assert answer == Loaded("gold", 1, 0)
    assert await load_tariff(ledger.pool, "gold", RATES, "USD", author=AUTHOR) == AlreadyLoaded("gold", 1, 0)
    assert await load_tariff(ledger.pool, "gold", RATES, "EUR", author=AUTHOR) == OtherCurrency("gold", "USD", "EUR")
    assert [(t.plan, t.version, t.rates) for t in await list_tariffs(ledger.pool)] == [("basic", 1, 1), ("gold", 1, 1)]


async def test_s47_later_versions_take_effect_after_the_lead(ledger: Ledger) -> None:
    before = now_ms()
    answer = await load_tariff(ledger.pool, "basic", DEARER, "USD", author=AUTHOR)
    assert isinstance(answer, Loaded)
    assert answer.version == 2
    assert before + 600_000 <= answer.effective_ms <= now_ms() + 660_000
    too_soon = await load_tariff(ledger.pool, "basic", RATES, "USD", author=AUTHOR, effective_ms=now_ms() + 599_000)
    assert isinstance(too_soon, Invalid)
    assert too_soon.field == "effective_ms"
    rows = await ledger.pool.fetch("select data from catalogue_outbox order by id")
    assert [msgspec.json.decode(row["data"])["version"] for row in rows] == [1, 2]


async def test_s47_the_same_rates_at_another_time_are_a_version_of_their_own(ledger: Ledger) -> None:
    at = now_ms() + 3_600_000
    answer = await load_tariff(ledger.pool, "basic", DEARER, "USD", author=AUTHOR, effective_ms=at)
    assert answer == Loaded("basic", 2, at)
    for effective_ms in (None, at):
        answer = await load_tariff(ledger.pool, "basic", DEARER, "USD", author=AUTHOR, effective_ms=effective_ms)
        assert answer == AlreadyLoaded("basic", 2, at)
    answer = await load_tariff(ledger.pool, "basic", DEARER, "USD", author=AUTHOR, effective_ms=at - 1_000_000)
    assert answer == Loaded("basic", 3, at - 1_000_000)
    answer = await load_tariff(ledger.pool, "basic", DEARER, "USD", author=AUTHOR, effective_ms=now_ms())
    assert isinstance(answer, Invalid)


async def insert_slowly(pool: Pool) -> None:
    """A version whose lead is long enough when it is written, and no more when it is committed."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "insert into tariffs (plan, version, currency, effective_ms, author) values ('basic', 2, 'USD', $1, 'x')",
            now_ms() + 600_300,
        )
        await connection.execute("select pg_sleep(0.5)")


async def test_s47_the_lead_is_verified_at_commit_not_at_the_statement(ledger: Ledger) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="less than 600 s"):
        await insert_slowly(ledger.pool)


async def test_s38_a_clock_that_was_set_back_does_not_shorten_the_lead(ledger: Ledger) -> None:
    await ledger.pool.execute("update catalogue_clock set as_of_ms = $1", now_ms() + 3_600_000)
    assert isinstance(await load_tariff(ledger.pool, "basic", DEARER, "USD", author=AUTHOR), Invalid)


async def test_s47_a_plan_change_waits_for_the_lead_too(ledger: Ledger) -> None:
    await load_tariff(ledger.pool, "gold", DEARER, "USD", author=AUTHOR)
    await ledger.open("alice")
    changes = Changes(plan="gold", effective_ms=now_ms() + 500_000)
    assert isinstance(await set_account(ledger.pool, "alice", changes, author=AUTHOR), Invalid)
    later = replace(changes, effective_ms=now_ms() + 900_000)
    answer = await set_account(ledger.pool, "alice", later, author=AUTHOR)
    assert isinstance(answer, Changed)
    assert answer.plan_effective_ms == later.effective_ms
    assert await ledger.count("plan_assignments") == 2
    await ledger.verified()


async def test_two_loads_at_once_are_two_versions_or_one(ledger: Ledger) -> None:
    results = await asyncio.gather(*(load_tariff(ledger.pool, "basic", DEARER, "USD", author=AUTHOR) for _ in range(5)))
    assert sorted(type(result).__name__ for result in results) == ["AlreadyLoaded"] * 4 + ["Loaded"]
