"""Deciding: checks 1 to 5 and the insert of the intent in one transaction on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from recharge_support import NO_WAIT, UNIT, Books

from billing.ledger.accounts import set_account
from billing.ledger.booking import Booked, adjust, credit
from billing.ledger.terms import Changed, Changes, NoSuchAccount
from billing.recharge import protocol
from billing.recharge.due import Mark
from billing.recharge.evaluation import Opened, Passed, RefusedBy, Withdrawn
from billing.recharge.policy import Limits, Refusal, StoreView, Verdict
from billing.recharge.protocol import State
from billing.recharge.store import RechargeStore


async def refused(books: Books, account: str, view: StoreView) -> Refusal:
    answer = await books.store.evaluate(account, view)
    assert isinstance(answer, RefusedBy), answer
    return answer.refusal


async def test_a_low_balance_opens_one_intent_with_frozen_parameters(books: Books) -> None:
    view = await books.low("acme")
    answer = await books.store.evaluate("acme", view, owner="w1")
    assert isinstance(answer, Opened)
    assert [verdict.check for verdict in answer.verdicts] == ["store", "level", "ledger", "episode", "caps"]
    intent = answer.intent
    assert (intent.state, intent.episode, intent.amount_minor, intent.amount_micros) == (
        *(State.PROVING, 1, 2000, 20 * UNIT),
    )
    assert (intent.customer, intent.payment_method, intent.lease_owner) == ("cus_1", "pm_1", "w1")
    assert intent.usage_position == view.usage_position
    assert await books.store.open_of("acme") == [intent]


async def test_s31_a_thousand_signals_at_once_open_one_intent(books: Books) -> None:
    view = await books.low("acme")
    answers = await asyncio.gather(*(books.store.evaluate("acme", view) for _ in range(1000)))
    opened = [answer for answer in answers if isinstance(answer, Opened)]
    assert len(opened) == 1
    refusals = {answer.refusal for answer in answers if isinstance(answer, RefusedBy)}
    assert refusals == {Refusal.INTENT_OPEN}
    stored = await books.store.evaluations("acme")
    assert sorted((row.refusal or "", row.times) for row in stored) == [("", 1), ("intent_open", 999)]


async def test_r3_the_database_itself_refuses_a_second_open_intent(books: Books) -> None:
    intent = await books.opened("acme", await books.low("acme"))
    await books.pool.execute("update recharge_episodes set episode = 2")
    with pytest.raises(Exception, match="one_open_intent"):
        await books.pool.execute(
            "insert into recharge_intents (account_id, episode, timeline, currency, amount_micros, amount_minor,"
            " customer, payment_method, usage_position)"
            " select account_id, 2, timeline, currency, amount_micros, amount_minor, customer, payment_method, 0"
            " from recharge_intents where id = $1",
            intent.id,
        )


async def test_r3_the_next_comes_only_after_the_credit_was_read_back_and_in_the_next_episode(books: Books) -> None:
    books.store = RechargeStore(books.pool, NO_WAIT)
    intent = await books.charged(await books.opened("acme", await books.low("acme")), "pi_1")
    assert await refused(books, "acme", await books.view("acme")) is Refusal.INTENT_OPEN
    booked = await books.store.credit(intent.id)
    await books.use("acme", 25 * UNIT)
    assert await refused(books, "acme", await books.view("acme")) is Refusal.INTENT_OPEN
    seq = booked.intent.intent.credit_seq
    assert seq is not None
    closed = await books.save(booked.intent, protocol.ReadBack(seq))
    assert (closed.state, closed.open) == (State.CONFIRMED, False)
    assert (await books.opened("acme", await books.view("acme"))).episode == 2


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"healthy": False, "health_reason": "replica"}, Refusal.STORE_UNHEALTHY),
        ({"unknown": "rebuilding"}, Refusal.BALANCE_UNKNOWN),
        ({"used_micros": 1 * UNIT}, Refusal.NOT_BELOW_THRESHOLD),
        ({"usage_position": 999, "log_time_ms": 10**9}, Refusal.LEDGER_LAGS),
    ],
)
async def test_r1_each_refusal_is_stored_with_what_it_saw(
    books: Books, change: dict[str, Any], refusal: Refusal
) -> None:
    view = replace(await books.low("acme"), **change)
    assert await refused(books, "acme", view) is refusal
    (row,) = await books.store.evaluations("acme")
    assert (row.stage, row.refusal, row.intent) == ("open", refusal.value, None)
    assert row.checks[-1]["refusal"] == refusal.value
    assert await books.store.open_of("acme") == []


async def test_the_ledger_must_agree_and_have_seen_usage(books: Books) -> None:
    await books.open("unused", credit_micros=5 * UNIT, recharge_below_micros=10 * UNIT, recharge_by_micros=20 * UNIT,
                     customer="cus_1", payment_method="pm_1")  # fmt: skip
    assert await refused(books, "unused", await books.view("unused")) is Refusal.NO_USAGE
    view = await books.low("acme")
    assert isinstance(await credit(books.pool, "acme", 50 * UNIT, "cheque", author="tests"), Booked)
    assert await refused(books, "acme", view) is Refusal.LEDGER_DISAGREES
    assert await books.store.evaluate("nobody", view) == NoSuchAccount("nobody")


async def test_r5_s43_an_adjustment_that_lowers_many_accounts_makes_none_due(books: Books) -> None:
    accounts = [f"a{i}" for i in range(20)]
    for account in accounts:
        await books.open(account, credit_micros=30 * UNIT, recharge_below_micros=10 * UNIT,
                         recharge_by_micros=20 * UNIT, customer="cus_1", payment_method="pm_1")  # fmt: skip
        await books.use(account, 5 * UNIT)
    lowered = await asyncio.gather(
        *(adjust(books.pool, account, -25 * UNIT, "migrated", author="tests") for account in accounts)
    )
    assert {answer.balance_micros for answer in lowered if isinstance(answer, Booked)} == {0}
    # the sweep, which looks at the ledger's level, marks none; nor does either book's level say so
    assert (await books.store.sweep("low")).marked == 0
    assert (await books.store.sweep("exhausted")).marked == 0
    for account in accounts:
        view = await books.view(account)
        assert (view.level_micros, view.credit_micros - view.used_micros) == (25 * UNIT, 0)
        assert await refused(books, account, view) is Refusal.NOT_BELOW_THRESHOLD
        # a store that does not know which debits were not usage is overruled by the ledger
        forgetful = replace(view, excluded_debits_micros=0)
        assert await refused(books, account, forgetful) is Refusal.LEDGER_DISAGREES
    assert await books.pool.fetchval("select count(*) from recharge_intents") == 0


async def test_s48_a_credit_between_check_and_charge_is_seen_by_the_last_look(books: Books) -> None:
    view = await books.low("acme")
    created = await books.save(await books.opened("acme", view), protocol.Proven(), protocol.Created("pi_1"))
    assert isinstance(await credit(books.pool, "acme", 50 * UNIT, "cheque", author="tests"), Booked)
    answer = await books.store.final(created, view, (Verdict("guard", None, {"age_ms": 3}),))
    assert isinstance(answer, Withdrawn)
    assert (answer.intent.state, answer.intent.intent.reason) == (State.WITHDRAWN, "ledger_disagrees")
    assert [verdict.check for verdict in answer.verdicts] == ["guard", "store", "level", "ledger"]
    assert answer.intent.lease_epoch == created.lease_epoch
    closed = await books.save(answer.intent, protocol.PaymentCancelled())
    assert closed.state is State.CANCELLED


async def test_s48_the_last_look_passes_when_nothing_changed_and_sees_switches(books: Books) -> None:
    view = await books.low("acme")
    created = await books.save(await books.opened("acme", view), protocol.Created("pi_1"))
    passed = await books.store.final(created, view)
    assert isinstance(passed, Passed)
    assert passed.intent.state is State.CONFIRMING
    back = await books.save(passed.intent, protocol.PaymentAwaitsConfirmation())
    await books.pool.execute("insert into recharge_breaker (currency, open, tripped_at) values ('USD', true, now())"
                             " on conflict (currency) do update set open = true, tripped_at = now()")  # fmt: skip
    answer = await books.store.final(back, view)
    assert isinstance(answer, Withdrawn)
    assert answer.intent.intent.reason == Refusal.BREAKER_OPEN


async def test_a_proof_that_failed_refuses_and_the_next_episode_begins(books: Books) -> None:
    view = await books.low("acme")
    intent = await books.opened("acme", view)
    verdict = Verdict("proof", Refusal.PROOF_FAILED, {"reason": "incarnation"})
    saved = await books.store.save(intent, protocol.CheckRefused("proof_failed"), verdicts=(verdict,))
    assert not hasattr(saved, "state") or saved.state is State.REFUSED
    rows = await books.store.evaluations("acme")
    assert {(row.stage, row.refusal, row.intent) for row in rows} == {
        ("open", None, intent.id),
        ("proof", "proof_failed", intent.id),
    }
    assert (await books.opened("acme", view)).episode == 2  # refused before any payment: no interval


async def test_due_rows_go_or_come_again_by_what_was_decided(books: Books) -> None:
    view = await books.low("acme")
    await books.store.mark_due([Mark("acme", 1), Mark("acme", 7), Mark("nobody", 1)])
    (due,) = await books.store.claim_due(10)
    assert (due.account, due.usage_position) == ("acme", 7)
    assert await books.store.claim_due(10) == []  # taken, until the claim is over
    assert isinstance(await books.store.evaluate("acme", replace(view, unknown="torn"), due=due), RefusedBy)
    again_ms = await books.store.next_due_in_ms()
    assert again_ms is not None
    assert again_ms <= 250
    await books.store.mark_due([Mark("acme", 9)])  # a signal during the evaluation is not lost
    high = replace(view, credit_micros=100 * UNIT)
    assert isinstance(await books.store.evaluate("acme", high, due=due), RefusedBy)
    (due,) = await books.store.claim_due(10)
    assert due.usage_position == 9
    assert isinstance(await books.store.evaluate("acme", high, due=due), RefusedBy)
    assert await books.store.next_due_in_ms() is None
    await books.store.mark_due([Mark("acme", 9)])
    (due,) = await books.store.claim_due(10)
    assert isinstance(await books.store.evaluate("acme", view, due=due), Opened)
    again_ms = await books.store.next_due_in_ms()
    assert again_ms is not None
    assert 50_000 < again_ms <= 60_000


async def test_the_sweep_finds_accounts_whose_signal_was_lost(books: Books) -> None:
    for name in ("a", "b", "c"):
        await books.low(name)
    await books.open("d", credit_micros=1 * UNIT)
    await books.use("d", 1 * UNIT)
    first = await books.store.sweep("low", page=2)
    assert (first.marked, first.last) == (2, "b")
    assert (await books.store.sweep("low", after="b", page=2)).marked == 1
    assert (await books.store.sweep("low")).marked == 0
    assert (await books.store.sweep("exhausted")).marked == 1
    assert {due.account for due in await books.store.claim_due(10)} == {"a", "b", "c", "d"}


async def test_closed_frozen_and_unreconciled_accounts_are_not_charged(books: Books) -> None:
    view = await books.low("acme")
    assert isinstance(await set_account(books.pool, "acme", Changes(status="closed"), author="tests"), Changed)
    assert await refused(books, "acme", view) is Refusal.ACCOUNT_CLOSED
    view = await books.low("other")
    await books.pool.execute("update ledger_meta set timeline = 'restored'")
    assert await refused(books, "other", view) is Refusal.FROZEN
    assert Limits().breaker_per_minute_micros == 10_000 * UNIT
