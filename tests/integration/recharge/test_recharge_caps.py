"""Caps, back-off and the breaker under concurrency: money that may move never exceeds them (R4)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from recharge_support import NO_WAIT, UNIT, Books

from billing.ledger.accounts import set_account
from billing.ledger.terms import Changed, Changes
from billing.recharge import protocol, switches
from billing.recharge.evaluation import EvaluateAnswer, Opened, RefusedBy
from billing.recharge.policy import Limits, Refusal
from billing.recharge.store import RechargeStore


def refusals(answers: list[EvaluateAnswer]) -> list[Refusal]:
    return [answer.refusal for answer in answers if isinstance(answer, RefusedBy)]


def openings(answers: list[EvaluateAnswer]) -> list[Opened]:
    return [answer for answer in answers if isinstance(answer, Opened)]


async def evaluate(books: Books, account: str) -> EvaluateAnswer:
    return await books.store.evaluate(account, await books.view(account), owner="w1")


async def refused(books: Books, account: str) -> Refusal:
    answer = await evaluate(books, account)
    assert isinstance(answer, RefusedBy), answer
    return answer.refusal


async def test_r4_a_thousand_open_intents_cannot_slip_under_the_breaker(books: Books) -> None:
    """No intent has been charged when the next is opened: the breaker counts what may still move."""
    books.store = RechargeStore(books.pool, replace(NO_WAIT, breaker_per_minute_micros=100 * UNIT))
    accounts = [f"a{i}" for i in range(40)]
    views = [await books.low(account) for account in accounts]
    work = list(zip(accounts, views, strict=True)) * 25
    random.Random(4).shuffle(work)
    answers = list(await asyncio.gather(*(books.store.evaluate(account, view) for account, view in work)))
    assert len(openings(answers)) == 5
    assert set(refusals(answers)) == {Refusal.BREAKER_TRIPPED, Refusal.BREAKER_OPEN, Refusal.INTENT_OPEN}
    assert refusals(answers).count(Refusal.BREAKER_TRIPPED) == 1
    (breaker,) = await books.store.breakers()
    assert (breaker.open, breaker.used_micros, breaker.limit_micros) == (True, 100 * UNIT, 100 * UNIT)


async def test_r4_the_breaker_stays_open_until_a_person_resets_it_and_then_counts_anew(books: Books) -> None:
    books.store = RechargeStore(books.pool, replace(NO_WAIT, breaker_per_minute_micros=40 * UNIT))
    for account in ("a", "b", "c", "d", "e"):
        await books.low(account)
    first, second = await books.opened("a", await books.view("a")), await books.opened("b", await books.view("b"))
    assert await refused(books, "c") is Refusal.BREAKER_TRIPPED
    await books.confirmed(first, "pi_a")
    await books.declined(second, "pi_b")  # definitively: counts no more
    assert await refused(books, "c") is Refusal.BREAKER_OPEN
    assert await switches.breaker_reset(books.pool, author="ada", reason="looked") == ["USD"]
    # the confirmed one was looked at by a person; both fit again, a third does not
    await books.opened("c", await books.view("c"))
    await books.opened("d", await books.view("d"))
    assert await refused(books, "e") is Refusal.BREAKER_TRIPPED
    # what may still move counts through a reset
    assert await switches.breaker_reset(books.pool, author="ada", reason="looked") == ["USD"]
    assert await refused(books, "e") is Refusal.BREAKER_TRIPPED


async def test_r4_one_large_account_does_not_stop_the_others(books: Books) -> None:
    books.store = RechargeStore(books.pool, replace(NO_WAIT, breaker_per_minute_micros=50 * UNIT))
    await books.low("large", recharge_by_micros=60 * UNIT)
    assert await refused(books, "large") is Refusal.ABOVE_BREAKER
    await books.opened("small", await books.low("small"))


async def test_r4_each_currency_has_its_own_breaker(books: Books) -> None:
    books.store = RechargeStore(books.pool, replace(NO_WAIT, breaker_per_minute_micros=20 * UNIT))
    await books.opened("a", await books.low("a"))
    await books.low("b")
    assert await refused(books, "b") is Refusal.BREAKER_TRIPPED
    assert [breaker.currency for breaker in await books.store.breakers() if breaker.open] == ["USD"]
    assert await switches.breaker_reset(books.pool, author="ada", reason="x", currency="JPY") == []


async def spend(books: Books, account: str) -> None:
    """Use what is left above 7.00."""
    row = await books.account(account)
    await books.use(account, max(1, row.balance_micros - 7 * UNIT))


async def test_r4_a_days_money_and_count_have_defaults_and_an_own_cap(books: Books) -> None:
    books.store = RechargeStore(books.pool, NO_WAIT)
    cases: list[tuple[str, dict[str, int], int]] = [
        ("money", {"daily_cap_micros": 50 * UNIT}, 2),
        ("count", {"daily_cap_micros": 10**15}, 5),
        ("default", {}, 5),
        ("none", {"daily_cap_micros": 0}, 0),
    ]
    for account, terms, most in cases:
        view = await books.low(account, **terms)
        for number in range(most):
            await books.confirmed(await books.opened(account, view), f"pi_{account}_{number}")
            await spend(books, account)
            view = await books.view(account)
        expected = Refusal.CAP_COUNT_DAY if account == "count" else Refusal.CAP_MONEY_DAY
        assert await refused(books, account) is expected
        if account != "none":  # yesterday's count no more
            day = "update recharge_intents set counted_at = counted_at - interval '1 day' where account_id = $1"
            await books.pool.execute(day, account)
            await books.opened(account, view)


async def test_r4_the_minimum_interval_counts_every_attempt_that_reached_the_gateway(books: Books) -> None:
    view = await books.low("acme")
    stored = await books.save(await books.opened("acme", view), protocol.CheckRefused("proof_failed"))
    stored = await books.opened("acme", view)  # nothing had been created: no interval
    await books.save(stored, protocol.Created("pi_1"), protocol.CheckRefused("paused"), protocol.PaymentCancelled())
    assert await refused(books, "acme") is Refusal.MINIMUM_INTERVAL


async def test_s36_declines_back_off_longer_each_time_and_pause_after_the_fourth(books: Books) -> None:
    books.store = RechargeStore(books.pool, NO_WAIT)
    view = await books.low("acme")
    waits_ms = Limits().decline_back_off_ms
    for number, wait_ms in enumerate((*waits_ms, None)):
        stored = await books.opened("acme", view)
        await books.declined(stored, f"pi_{number}")
        answers = list(await asyncio.gather(*(books.store.evaluate("acme", view) for _ in range(20))))
        expected = Refusal.DECLINES_PAUSED if wait_ms is None else Refusal.DECLINES_BACK_OFF
        assert set(refusals(answers)) == {expected}
        assert openings(answers) == []
        almost = f"update recharge_intents set declined_at = now() - interval '{(wait_ms or 10**9) - 9000} ms'"
        await books.pool.execute(almost)
        assert await refused(books, "acme") is expected
        await books.pool.execute("update recharge_intents set declined_at = declined_at - interval '9 s'")
    # for ever, until the account has another card
    await books.pool.execute("update recharge_intents set declined_at = declined_at - interval '1 year'")
    assert await refused(books, "acme") is Refusal.DECLINES_PAUSED
    changed = await set_account(books.pool, "acme", Changes(payment_method="pm_2"), author="tests")
    assert isinstance(changed, Changed)
    assert await refused(books, "acme") is Refusal.CARD_NOT_SAVED
    await books.save_card("acme")
    stored = await books.opened("acme", view)
    assert stored.payment_method == "pm_2"


async def test_s36_a_success_ends_the_run_of_declines(books: Books) -> None:
    books.store = RechargeStore(books.pool, replace(NO_WAIT, decline_back_off_ms=(0,)))
    view = await books.low("acme")
    for number in range(3):
        await books.declined(await books.opened("acme", view), f"pi_{number}")
    await books.confirmed(await books.opened("acme", view), "pi_ok")
    found = await books.store.view("acme")
    assert found.history.declines_in_a_row == 0  # type: ignore[union-attr]  # the account is there


async def test_r4_whatever_happens_in_whatever_order_caps_hold(books: Books) -> None:
    """Workers that open, charge, decline and lose track, all at once: at every moment the money that moved or may move
    is within the account's day and the breaker's minute."""
    limits = replace(
        NO_WAIT, breaker_per_minute_micros=200 * UNIT, decline_back_off_ms=(0,), pause_after_declines=10**6
    )
    books.store = RechargeStore(books.pool, limits)
    accounts = [f"a{i}" for i in range(8)]
    for account in accounts:
        await books.low(account, daily_cap_micros=60 * UNIT)
    numbers = iter(range(10**6))

    async def act(rng: random.Random, account: str) -> None:
        answer = await books.store.evaluate(account, await books.view(account), owner=f"w{next(numbers)}")
        if not isinstance(answer, Opened):
            return
        stored, payment = answer.intent, f"pi_{next(numbers)}"
        way = rng.choice(("confirmed", "confirmed", "declined", "lost"))
        if way == "confirmed":
            await books.confirmed(stored, payment)
            async with spending:
                await spend(books, account)
        elif way == "declined":
            await books.declined(stored, payment)
        else:
            await books.save(stored, protocol.Created(payment), protocol.CheckPassed())

    spending = asyncio.Lock()
    for seed in range(12):
        rng = random.Random(seed)
        await asyncio.gather(*(act(rng, rng.choice(accounts)) for _ in range(16)))
        rows = await books.pool.fetch(
            "select account_id, sum(amount_micros)::bigint as total, count(*) as intents from recharge_intents"
            " where state not in ('cancelled', 'refused') group by account_id"
        )
        assert all(row["total"] <= 60 * UNIT and row["intents"] <= limits.count_per_day for row in rows)
        assert sum(row["total"] for row in rows) <= 200 * UNIT
    open_each = await books.pool.fetchval(
        "select max(n) from (select count(*) as n from recharge_intents"
        " where state not in ('confirmed', 'cancelled', 'refused') group by account_id) as per"
    )
    assert open_each == 1
    await books.verified()
