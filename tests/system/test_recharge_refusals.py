"""What must not lead to a charge, or to one only: storms of signals, declines, adjustments, the breaker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from recharge_harness import UNIT, Recharging, recharging

from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.lab.waiting import until
from billing.ledger.booking import Booked, acknowledge_debits, adjust
from billing.recharge.limits import limits_from_env
from billing.recharge.switches import breaker_reset, breakers, pause, resume

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recharging]:
    folder: Path = tmp_path_factory.mktemp("recharging")
    async with isolated(services) as settings, recharging(settings, folder) as found:
        yield found


async def test_s31_a_thousand_signals_at_once_are_one_charge(deployment: Recharging) -> None:
    await deployment.open("s31")
    await deployment.lower("s31")
    await deployment.signal_low("s31", 1_000)
    await deployment.until_state("s31", "confirmed")
    await deployment.signal_low("s31", 1_000)
    await deployment.until_refused("s31", "not_below_threshold")
    await deployment.assert_one_charge("s31")


async def test_s36_a_declined_card_is_tried_once_and_then_backed_off_from(deployment: Recharging) -> None:
    await deployment.open("s36", payment_method="pm_card_chargeCustomerFail")
    await deployment.lower("s36")
    await deployment.until_state("s36", "cancelled")
    await deployment.pool.execute("update recharge_due set evaluate_at = now() where account_id = 's36'")
    await deployment.signal_low("s36", 50)
    await deployment.until_refused("s36", "minimum_interval")
    assert await deployment.charges("s36") == ["failed"]
    assert [payment["status"] for payment in await deployment.payments("s36")] == ["canceled"]
    assert await deployment.credits("s36") == []


async def test_s36_a_card_that_cannot_be_saved_is_a_decline_and_makes_no_payment(deployment: Recharging) -> None:
    await deployment.open("s36-card", payment_method="pm_card_chargeDeclinedExpiredCard")
    await deployment.lower("s36-card")
    await deployment.until_refused("s36-card", "card_not_saved")
    await deployment.signal_low("s36-card", 50)
    await deployment.until_refused("s36-card", "declines_back_off")
    assert await deployment.payments("s36-card") == []
    row = await deployment.pool.fetchrow(
        "select declines, decline_code from recharge_cards where account_id = 's36-card'"
    )
    assert row is not None
    assert tuple(row) == (1, "expired_card")


async def test_s43_r5_an_adjustment_of_many_charges_nobody_until_it_is_acknowledged(deployment: Recharging) -> None:
    accounts = [f"s43-{number}" for number in range(10)]
    await deployment.open(*accounts)
    await asyncio.gather(*(deployment.use(account, 800_000) for account in accounts))
    for account in accounts:
        answer = await adjust(deployment.pool, account, -5 * UNIT, "correction of 2026", author="tests")
        assert isinstance(answer, Booked)
    for account in accounts:
        await deployment.until_booked(account)
        await deployment.signal_low(account, 3)  # even where somebody asks
    for account in accounts:
        await deployment.until_refused(account, "not_below_threshold")
        assert await deployment.intents(account) == []
    await acknowledge_debits(deployment.pool, accounts[0], "looked at", author="tests")
    await deployment.until_state(accounts[0], "confirmed")
    await deployment.assert_one_charge(accounts[0])
    for account in accounts[1:]:
        assert await deployment.payments(account) == []


async def test_s25_an_exhausted_account_without_a_card_is_suspended_and_a_credit_lifts_that(
    deployment: Recharging,
) -> None:
    await deployment.open(
        "bare", credit=1, payment_method=None, recharge_below_micros=None, recharge_by_micros=None
    )
    await deployment.use("bare", 1_600_000)
    await _until_status(deployment, "bare", "suspended")
    await adjust(deployment.pool, "bare", 5 * UNIT, "paid by hand", author="tests")
    await _until_status(deployment, "bare", "open")


async def test_pause_refuses_and_resume_lets_it_go_on(deployment: Recharging) -> None:
    assert await pause(deployment.pool, author="tests", reason="test") is True
    try:
        await deployment.open("paused")
        await deployment.lower("paused")
        await deployment.until_refused("paused", "paused")
        assert await deployment.payments("paused") == []
    finally:
        await resume(deployment.pool, author="tests", reason="test")
    await deployment.pool.execute("update recharge_due set evaluate_at = now() where account_id = 'paused'")
    await deployment.until_state("paused", "confirmed")
    await deployment.assert_one_charge("paused")


async def test_r4_the_breaker_opens_at_its_limit_and_only_a_person_closes_it(deployment: Recharging) -> None:
    """In a currency that no other test charges."""
    await deployment.worker.stop()
    await deployment.add_worker("recharge", BILLING_BREAKER_PER_MINUTE="30.00")
    accounts = [f"r4-{number}" for number in range(5)]
    await deployment.open(*accounts, currency="EUR")
    await deployment.lower(accounts[0])
    await deployment.until_state(accounts[0], "confirmed")
    await deployment.lower(*accounts[1:])
    for account in accounts[1:]:
        await _until_stopped(deployment, account)
    assert await _breaker_open(deployment)
    assert await _charged(deployment, accounts) == accounts[:1]
    assert await breaker_reset(deployment.pool, author="tests", reason="looked at") == ["EUR"]
    await deployment.signal_low(accounts[1], 1)
    await deployment.until_state(accounts[1], "confirmed")
    assert await _charged(deployment, accounts) == accounts[:2]


async def _charged(deployment: Recharging, accounts: list[str]) -> list[str]:
    return [account for account in accounts if await deployment.charged(account)]


async def _until_stopped(deployment: Recharging, account: str) -> None:
    """Refused by the breaker."""

    async def refused() -> bool:
        return bool({"breaker_open", "breaker_tripped"} & set(await deployment.refusals(account)))

    await until(refused, f"{account} to be refused by the breaker")


async def _breaker_open(deployment: Recharging) -> bool:
    return any(each.open for each in await breakers(deployment.pool, limits_from_env({})))


async def _until_status(deployment: Recharging, account: str, status: str) -> None:
    """In both books."""

    async def reached() -> bool:
        row, known = await deployment.account(account), await deployment.balance(account)
        return bool(row["status"] == status == getattr(known, "status", ""))

    await until(reached, f"{account} to be {status}", timeout_seconds=40)
