"""S35: a payment goes back, or a session is refunded, while a recharge is under way; the books still sum to zero."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count
from typing import Any

import asyncpg
import pytest
from recharge_support import NO_WAIT, UNIT, Books

from billing.ledger.booking import Booked
from billing.ledger.corrections import Refunded, TooMuch, refund_usage
from billing.ledger.findings import findings, resolve
from billing.ledger.taken_back import NotCredited, NotTaken, came_back, take_back
from billing.ledger.terms import Conflict
from billing.recharge import protocol
from billing.recharge.crediting import CreditBooked
from billing.recharge.intents import StoredIntent
from billing.recharge.payment_findings import report
from billing.recharge.policy import Refusal
from billing.recharge.store import RechargeStore

CREATED, PASSED = protocol.Created("pi_2"), protocol.CheckPassed()
SUCCEEDED = protocol.PaymentSucceeded("pi_2", 2000)
STAGES: tuple[tuple[protocol.Event, ...], ...] = (
    (),
    (CREATED,),
    (CREATED, PASSED),
    (CREATED, PASSED, SUCCEEDED),
)


NUMBERS = count()


async def back(books: Books, recharge: int, amount: int | None = None, origin: Any = "chargeback", **named: Any) -> Any:
    named = {"author": "ann", "reason": "disputed", "gateway_id": f"x_{next(NUMBERS)}", **named}
    return await take_back(books.pool, recharge, origin, amount, named.pop("reason"), **named)


async def charged_twice(books: Books, account: str) -> tuple[StoredIntent, StoredIntent]:
    """A confirmed recharge of 20.00, and the next one, proving. The account has 12 + 20 - 5 - 20 = 7.00."""
    first = await books.opened(account, await books.low(account))
    first = await books.confirmed(first, f"pi_1_{account}")
    await books.use(account, 20 * UNIT)
    return first, await books.opened(account, await books.view(account))


async def total(books: Books, ledger_account: str) -> int:
    sql = "select coalesce(sum(amount_micros), 0)::bigint from postings where ledger_account = $1"
    found: int = await books.pool.fetchval(sql, ledger_account)
    return found


async def test_s35_a_chargeback_and_a_refund_in_each_state_of_the_next_recharge(books: Books) -> None:
    books.store = RechargeStore(books.pool, NO_WAIT)
    for number, events in enumerate(STAGES):
        account = f"acct-{number}"
        first, second = await charged_twice(books, account)
        second = await books.save(second, *(_of(account, event) for event in events))
        seven = await books.account(account)
        answers = await asyncio.gather(
            back(books, first.id, 15 * UNIT),
            back(books, first.id, 5 * UNIT, "payment_refund"),
            refund_usage(books.pool, account, f"s{seven.last_charged_offset}", 3 * UNIT, "bad line", author="ann"),
            books.store.credit(second.id, _of(account, SUCCEEDED)),
        )
        assert [type(answer) for answer in answers] == [Booked, Booked, Refunded, CreditBooked]
        found = await books.account(account)
        assert seven.balance_micros == 7 * UNIT
        assert (found.balance_micros, found.excluded_micros) == ((7 - 15 - 5 + 3 + 20) * UNIT, 20 * UNIT)
    await books.verified()
    assert await total(books, "chargebacks") == len(STAGES) * 15 * UNIT
    assert await total(books, "gateway_clearing") == len(STAGES) * (-40 + 5) * UNIT


def _of(account: str, event: protocol.Event) -> Any:
    return event if event == PASSED else replace(event, payment_id=f"pi_2_{account}")  # type: ignore[call-arg, misc]


async def test_s35_r5_a_chargeback_makes_nobody_due(books: Books) -> None:
    books.store = RechargeStore(books.pool, NO_WAIT)
    first = await books.opened("acme", await books.low("acme"))
    await books.confirmed(first, "pi_1")
    assert isinstance(await back(books, first.id), Booked)
    assert (await books.account("acme")).balance_micros == 7 * UNIT  # below the threshold of 10.00
    answer = await books.store.evaluate("acme", await books.view("acme"), owner="w1")
    assert answer.verdicts[-1].refusal is Refusal.NOT_BELOW_THRESHOLD


async def test_s35_of_a_payment_at_most_the_payment_is_taken_back(books: Books) -> None:
    books.store = RechargeStore(books.pool, NO_WAIT)
    first, second = await charged_twice(books, "acme")
    assert await back(books, second.id) == NotCredited(second.id, exists=True)
    assert await back(books, 10**6) == NotCredited(10**6, exists=False)
    origins = ["chargeback", "payment_refund"] * 4
    answers = await asyncio.gather(*(back(books, first.id, 6 * UNIT, origin) for origin in origins))
    assert sum(isinstance(answer, Booked) for answer in answers) == 3
    assert await back(books, first.id, 3 * UNIT) == TooMuch(f"recharge {first.id}", "USD", 20 * UNIT, 2 * UNIT)
    keyed = [await back(books, first.id, gateway_id="dp_7") for _ in range(2)]
    assert [answer.repeated for answer in keyed] == [False, True]
    assert isinstance(await back(books, first.id, UNIT, gateway_id="dp_7"), Conflict)
    assert isinstance(await back(books, first.id, 2 * UNIT, gateway_id="dp_7", author="bob", reason="seen"), Booked)
    await books.verified()
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await books.pool.execute(
            "with entry as (insert into journal (kind, origin, author, reason, account_id, ledger_seq, corrects_id)"
            " select 'entry', 'chargeback', 'x', 'y', account_id, 99, id from journal where origin = 'recharge'"
            " returning id, account_id)"
            " insert into postings (journal_id, ledger_account, account_id, currency, amount_micros)"
            " select id, 'customer', account_id, 'USD', -1 from entry"
            " union all select id, 'chargebacks', null, 'USD', 1 from entry"
        )
    assert refused.value.constraint_name == "taken_back_at_most"


async def test_s35_what_comes_back_goes_where_it_came_from_once_and_only_after_it_went(books: Books) -> None:
    """A refund that fails after it had succeeded, and a dispute that is won: against clearing and chargebacks."""
    books.store = RechargeStore(books.pool, NO_WAIT)
    first, _ = await charged_twice(books, "acme")
    before = await books.account("acme")
    accounts = ("gateway_clearing", "chargebacks", "suspense")
    stood = [await total(books, name) for name in accounts]
    named: dict[str, Any] = {"author": "gateway", "reason": "told"}
    assert await came_back(books.pool, "payment_refund", gateway_id="re_1", **named) == NotTaken("re_1")
    for origin, id_, amount in (("payment_refund", "re_1", 8), ("chargeback", "dp_1", 12)):
        assert isinstance(await back(books, first.id, amount * UNIT, origin, gateway_id=id_), Booked)
    assert await total(books, "chargebacks") == stood[1] + 12 * UNIT
    for origin, id_ in (("payment_refund", "re_1"), ("chargeback", "dp_1")):
        answers = await asyncio.gather(
            *(came_back(books.pool, origin, gateway_id=id_, **named) for _ in range(4))  # type: ignore[arg-type]
        )
        assert sorted(answer.repeated for answer in answers) == [False, True, True, True]  # type: ignore[union-attr]
    after = await books.account("acme")
    assert after.balance_micros == before.balance_micros
    assert [await total(books, name) for name in accounts] == stood
    assert isinstance(await back(books, first.id, 20 * UNIT), Booked)  # all of it can go back again
    await books.verified()
    with pytest.raises(asyncpg.CheckViolationError, match="came back"):
        await books.pool.execute(
            "with entry as (insert into journal (kind, origin, author, reason, account_id, ledger_seq, corrects_id)"
            " select 'entry', 'chargeback', 'x', 'y', account_id, 99, id from journal where origin = 'recharge'"
            " returning id, account_id)"
            " insert into postings (journal_id, ledger_account, account_id, currency, amount_micros)"
            " select id, 'customer', account_id, 'USD', 20000001 from entry"
            " union all select id, 'chargebacks', null, 'USD', -20000001 from entry"
        )


async def test_s35_whoever_reports_at_the_same_time_makes_one_finding(books: Books) -> None:
    """Two webhooks of one refund, and the sweep; also once the finding was resolved."""

    async def reported(refund: str) -> list[bool]:
        about = (books.pool, "payment_refund_not_booked", "twice", refund, {"why": "TooMuch"})
        return sorted(await asyncio.gather(*(report(*about, author="tests", reason=refund) for _ in range(3))))

    await books.open("twice")
    for number in range(10):
        assert await reported(f"re_{number}") == [False, False, True]
    found = [each async for each in findings(books.pool, account="twice")]
    assert [each.subject for each in found] == [f"re_{number}" for number in range(10)]
    assert await books.pool.fetchval("select frozen from recharge_freezes where account_id = 'twice'")
    async with books.pool.acquire() as connection:
        assert await resolve(connection, found[0].id, author="ann", reason="seen", action="seen")
    assert await reported("re_0") == [False, False, False]
