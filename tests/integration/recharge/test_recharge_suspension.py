"""Suspending exhausted accounts, and lifting that: both books, both fresh, never on Unknown, never an operator's."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
from recharge_support import NO_WAIT, UNIT, Books

from billing.ledger.accounts import set_account
from billing.ledger.booking import adjust, credit
from billing.ledger.terms import Changed, Changes, NoSuchAccount
from billing.recharge import switches
from billing.recharge.policy import StoreView
from billing.recharge.store import RechargeStore
from billing.recharge.suspension import Hindrance
from billing.recharge.suspensions import StatusAnswer, StatusChanged, StatusKept


async def exhausted(books: Books, account: str = "acme") -> StoreView:
    """An account without a card that used all it had."""
    await books.open(account, credit_micros=5 * UNIT)
    await books.use(account, 5 * UNIT)
    return await books.view(account)


def hindrance(answer: StatusAnswer) -> Hindrance:
    assert isinstance(answer, StatusKept), answer
    return answer.hindrance


async def status(books: Books, account: str = "acme") -> str:
    return (await books.account(account)).status


async def test_an_exhausted_account_is_suspended_once_through_the_outbox(books: Books) -> None:
    view = await exhausted(books)
    answers = await asyncio.gather(*(books.store.suspend_if("acme", view) for _ in range(20)))
    assert sum(isinstance(answer, StatusChanged) for answer in answers) == 1
    assert await status(books) == "suspended"
    rows = await books.pool.fetch("select type, data from outbox where account_id = 'acme' order by ledger_seq")
    assert (rows[-1]["type"], len(rows)) == ("ledger.account.changed.v1", 2)
    assert msgspec.json.decode(rows[-1]["data"])["status"] == "suspended"
    assert await books.store.suspended() == ["acme"]
    (row,) = await books.store.evaluations("acme")
    assert (row.stage, row.refusal) == ("suspend", None)
    assert row.checks[0]["seen"]["ledger_level_micros"] == 0
    await books.verified()


async def test_r1_s08_nothing_that_is_not_known_and_fresh_suspends(books: Books) -> None:
    view = await exhausted(books)
    far = 10**9
    for change, expected in (
        ({"healthy": False}, Hindrance.STORE_UNHEALTHY),
        ({"unknown": "empty"}, Hindrance.BALANCE_UNKNOWN),
        ({"usage_position": 99, "log_time_ms": far}, Hindrance.LEDGER_LAGS),
        ({"usage_position": 0, "log_time_ms": 0}, Hindrance.STORE_LAGS),
        ({"used_micros": 4 * UNIT}, Hindrance.NOT_EXHAUSTED),
        ({"used_micros": 0, "credit_micros": 0}, Hindrance.NOT_EXHAUSTED),  # empty is not exhausted
    ):
        async with books.pool.acquire() as connection, connection.transaction():
            await connection.execute("set local session_replication_role = replica")  # triggers off: no sink does this
            await connection.execute("update positions set log_time_ms = 500000 where topic = 'usage.events'")
        assert hindrance(await books.store.suspend_if("acme", replace(view, **change))) is expected
    await credit(books.pool, "acme", UNIT, "gift", author="tests")
    assert hindrance(await books.store.suspend_if("acme", view)) is Hindrance.BOOKS_DISAGREE
    assert await status(books) == "open"
    assert await books.store.suspend_if("nobody", view) == NoSuchAccount("nobody")


async def test_r5_s43_an_adjustment_suspends_nobody(books: Books) -> None:
    await books.open("acme", credit_micros=5 * UNIT)
    await books.use("acme", UNIT)
    await adjust(books.pool, "acme", -4 * UNIT, "migrated", author="tests")
    view = await books.view("acme")
    assert view.credit_micros - view.used_micros == 0
    assert hindrance(await books.store.suspend_if("acme", view)) is Hindrance.NOT_EXHAUSTED


async def test_a_recharge_on_its_way_or_our_own_trouble_keeps_the_account_open(books: Books) -> None:
    books.store = RechargeStore(books.pool, NO_WAIT)
    await books.low("acme")
    await books.use("acme", 7 * UNIT)
    view = await books.view("acme")
    assert view.level_micros == 0
    assert hindrance(await books.store.suspend_if("acme", view)) is Hindrance.RECHARGE_POSSIBLE
    intent = await books.opened("acme", view)
    assert hindrance(await books.store.suspend_if("acme", view)) is Hindrance.INTENT_OPEN
    await books.declined(intent, "pi_1")
    await switches.pause(books.pool, author="ada", reason="incident")
    assert hindrance(await books.store.suspend_if("acme", view)) is Hindrance.RECHARGE_POSSIBLE
    await switches.resume(books.pool, author="ada", reason="over")
    await switches.set_frozen(books.pool, "acme", frozen=True, author="ada", reason="books differ")
    assert hindrance(await books.store.suspend_if("acme", view)) is Hindrance.FROZEN
    await switches.set_frozen(books.pool, "acme", frozen=False, author="ada", reason="repaired")
    # declined, and not tried again for an hour: nothing is on its way
    assert isinstance(await books.store.suspend_if("acme", view), StatusChanged)


async def test_a_credit_lifts_our_suspension_when_both_books_show_it(books: Books) -> None:
    stale = await exhausted(books)
    assert isinstance(await books.store.suspend_if("acme", stale), StatusChanged)
    assert hindrance(await books.store.resume_if("acme", stale)) is Hindrance.STILL_EXHAUSTED
    await credit(books.pool, "acme", 3 * UNIT, "cheque", author="tests")
    assert hindrance(await books.store.resume_if("acme", stale)) is Hindrance.STILL_EXHAUSTED
    view = await books.view("acme")
    assert hindrance(await books.store.resume_if("acme", replace(view, unknown="torn"))) is Hindrance.BALANCE_UNKNOWN
    assert isinstance(await books.store.resume_if("acme", view), StatusChanged)
    assert await status(books) == "open"
    assert hindrance(await books.store.resume_if("acme", view)) is Hindrance.STATUS
    assert await books.store.suspended() == []


async def test_an_operators_suspension_is_not_lifted(books: Books) -> None:
    await books.open("acme", credit_micros=5 * UNIT)
    changed = await set_account(books.pool, "acme", Changes(status="suspended"), author="ada", reason="fraud")
    assert isinstance(changed, Changed)
    view = await books.view("acme")
    assert hindrance(await books.store.resume_if("acme", view)) is Hindrance.NOT_OURS
    assert hindrance(await books.store.suspend_if("acme", view)) is Hindrance.STATUS
    assert await books.store.suspended() == []
