"""Tariffs and plans that change while calls last, consumers lag and the relay is away (S41, S47): one price in both
books. The deployment is a real one whose lead is nine seconds instead of ten minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from reconcile_harness import CREDIT, Deployment, deployed
from usage_builders import CALL, PROGRESSED, STARTED, call, progressed, rates, rfc3339, started

from billing.ledger.accounts import set_account
from billing.ledger.database import fetchrow
from billing.ledger.tariffs import Loaded, load_tariff
from billing.ledger.terms import Changed, Changes
from billing.rating import catalogue
from billing.settings import Settings

pytestmark = pytest.mark.slow

LEAD_MS = 9_000  # above the heartbeat's 5 s
PRICE, DEARER, OTHER = 22_000, 120_000, 60_000  # a minute to +1202 by version 1, by version 2, by the other plan


@pytest.fixture
async def deployment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deployment]:
    """With the short lead on both sides: the catalogue's horizon and the database's rule."""
    monkeypatch.setattr(catalogue, "LEAD_MS", LEAD_MS)
    async with deployed(settings) as made:
        row = await fetchrow(made.pool, "select pg_get_functiondef('catalogue_lead'::regproc) as source")
        assert row is not None
        assert "600000" in row["source"]
        async with made.pool.acquire(timeout=10) as connection:
            await connection.execute(row["source"].replace("600000", str(LEAD_MS)))
        other = await load_tariff(made.pool, "other", rates("call,outbound,1,0.06,60,60,,,\n"), "USD", author="test")
        assert isinstance(other, Loaded)
        made.start()
        yield made


def _now_ms() -> int:
    return int(time.time() * 1000)


async def _until_ms(moment_ms: int) -> None:
    await asyncio.sleep(max(0, moment_ms - _now_ms()) / 1000)


async def _dearer(deployment: Deployment) -> int:
    """A second version of the plan's tariff; from when on."""
    effective_ms = _now_ms() + LEAD_MS + 1_500
    text = "call,outbound,1,0.12,60,60,,,\n"
    answer = await load_tariff(
        deployment.pool, "basic", rates(text), "USD", author="test", effective_ms=effective_ms
    )
    assert isinstance(answer, Loaded), answer
    return effective_ms


async def _ends(deployment: Deployment, account: str, session: str, answered_ms: int) -> None:
    await deployment.publish(account, CALL, call(call_id=session, answered_at=rfc3339(answered_ms)))


async def _used(deployment: Deployment, account: str) -> int:
    """In both books alike."""
    assert (await deployment.reconcile()).agreed
    balance = await deployment.balance(account)
    assert balance.credit_micros == CREDIT
    return balance.used_micros


async def test_s41_a_call_costs_what_it_did_when_it_was_answered_whatever_changes(deployment: Deployment) -> None:
    account = await deployment.open()
    change_ms = await _dearer(deployment)
    answered_ms = _now_ms()
    await deployment.publish(account, STARTED, started(call_id="across"))
    await deployment.publish(account, PROGRESSED, progressed(60, call_id="across", answered_at=rfc3339(answered_ms)))
    await deployment.until_settled()
    held = (await deployment.balance(account)).held_micros
    await _until_ms(change_ms + 1_000)
    longer = progressed(60, call_id="across-2", answered_at=rfc3339(answered_ms))
    await deployment.publish(account, PROGRESSED, longer)  # its start was lost; the price is still the old one
    await deployment.until_settled()
    assert (await deployment.balance(account)).held_micros == 2 * held
    await _ends(deployment, account, "across", answered_ms)
    await _ends(deployment, account, "across-2", change_ms - 1)
    await _ends(deployment, account, "after", change_ms)
    await _ends(deployment, account, "before", change_ms - 1)
    await deployment.until_settled()
    assert await _used(deployment, account) == 3 * PRICE + DEARER
    assert (await deployment.balance(account)).held_micros == 0


@pytest.mark.parametrize("lags", ["inflight", "postflight"])
async def test_s47_a_tariff_and_a_plan_change_while_one_consumer_lags(deployment: Deployment, lags: str) -> None:
    """It takes in later, and knowing the new versions, what the other priced before they were made."""
    account, moved = await deployment.open(), await deployment.open()
    await deployment.until_settled()
    await deployment.stop(lags)
    for number in range(3):
        await _ends(deployment, account, f"before-{number}", _now_ms())
        await _ends(deployment, moved, f"before-{number}", _now_ms())
    change_ms = await _dearer(deployment)
    answer = await set_account(deployment.pool, moved, Changes(plan="other", effective_ms=change_ms), author="test")
    assert isinstance(answer, Changed), answer
    await _until_ms(change_ms + 1_000)
    for name in (account, moved):
        await _ends(deployment, name, "late", change_ms - 1)
        await _ends(deployment, name, "after", change_ms + 500)
    deployment.start(lags)
    await deployment.until_settled()
    assert await _used(deployment, account) == 4 * PRICE + DEARER
    assert await _used(deployment, moved) == 4 * PRICE + OTHER


async def test_s47_usage_beyond_the_horizon_waits_in_both_books_while_the_relay_is_away(
    deployment: Deployment,
) -> None:
    """As when PostgreSQL is away: a version may have been made that the consumers do not know, so they do not price
    what it might price; what they do know goes on."""
    account, known_ms = await deployment.open(), _now_ms()
    await deployment.until_settled()
    await deployment.stop("relay")
    change_ms = await _dearer(deployment)
    await _until_ms(change_ms + 1_000)
    await _ends(deployment, account, "known", known_ms)
    await _ends(deployment, account, "beyond", change_ms)
    home, usage = deployment.home(account), deployment.settings.topics.usage

    async def one_taken() -> bool:
        view = await deployment.reader.read_partition(home)
        row = await fetchrow(
            deployment.pool, "select next_offset from positions where topic = 'usage.events' and partition = $1", home
        )
        return row is not None and view.positions[usage].offset == row["next_offset"] == 1  # type: ignore[union-attr]

    await deployment.until(one_taken)
    await asyncio.sleep(1.5)  # nothing says that a consumer waits but that it does not go on
    assert await one_taken()
    assert (await deployment.balance(account)).used_micros == PRICE
    deployment.start("relay")
    await deployment.until_settled()
    assert await _used(deployment, account) == PRICE + DEARER
