"""Refunds, adjustments, payments taken back: entries with an author, a reason and a link to what they correct."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from ledger_support import AUTHOR, Ledger, charge, names

from billing.ledger.booking import Booked, adjust, credit
from billing.ledger.corrections import Ambiguous, NoSuchSession, Refunded, TooMuch, refund_usage
from billing.ledger.terms import Conflict, Invalid, NoSuchAccount

UNIT = 1_000_000
(ACCOUNT, OTHER) = names(0, 2)


@pytest.fixture
async def books(ledger: Ledger) -> Ledger:
    """ACCOUNT paid 20.00 and used: call c 6.00, message c 0.50, item i for nothing."""
    await ledger.open(ACCOUNT, OTHER, credit_micros=20 * UNIT)
    owner = await ledger.claim()
    ops = [
        charge(0, ACCOUNT, "c", 6 * UNIT),
        charge(1, ACCOUNT, "c", UNIT // 2, kind="message", tariff_kind="sms"),
        charge(2, ACCOUNT, "i", 0, kind="item", tariff_kind="item"),
    ]
    await ledger.settle(owner, 0, ops)
    return ledger


async def refund(books: Ledger, session: str = "c", amount: int | None = None, **named: Any) -> Any:
    named = {"kind": "call", "author": "ann", **named}
    return await refund_usage(books.pool, ACCOUNT, session, amount, named.pop("reason", "bad line"), **named)


async def test_a_refund_gives_back_and_says_what_why_and_who(books: Ledger) -> None:
    part = await refund(books, amount=2 * UNIT)
    assert isinstance(part, Refunded)
    assert (part.amount_micros, part.left_micros, part.entry.balance_micros) == (2 * UNIT, 4 * UNIT, 15_500_000)
    rest = await refund(books)
    assert (rest.amount_micros, rest.left_micros, rest.entry.balance_micros) == (4 * UNIT, 0, 19_500_000)
    row = await books.pool.fetchrow("select * from journal where id = $1", part.entry.entry_id)
    assert (row["origin"], row["author"], row["reason"]) == ("refund", "ann", "bad line")
    lines = await books.pool.fetch(
        "select ledger_account, partition, amount_micros from postings where journal_id = $1 order by 1", row["id"]
    )
    assert [tuple(line) for line in lines] == [("customer", None, 2 * UNIT), ("revenue", 0, -2 * UNIT)]
    posted = await books.pool.fetchval("select data from outbox where ledger_seq = $1", part.entry.ledger_seq)
    assert '"origin": "refund"' in posted
    await books.verified()


async def test_a_refund_is_at_most_the_price_in_all_and_refusals_are_named(books: Ledger) -> None:
    assert await refund(books, amount=6 * UNIT + 1) == TooMuch("call c", "USD", 6 * UNIT, 6 * UNIT)
    await refund(books, amount=5 * UNIT)
    assert await refund(books, amount=UNIT + 1) == TooMuch("call c", "USD", 6 * UNIT, UNIT)
    await refund(books)
    assert await refund(books) == TooMuch("call c", "USD", 6 * UNIT, 0)
    assert isinstance(await refund(books, "i", kind="item"), TooMuch)
    assert await books.count("usage_corrections") == 2
    assert await refund(books, kind=None) == Ambiguous("c", ("call", "message"))
    assert await refund(books, "x") == NoSuchSession(ACCOUNT, "x")
    assert isinstance(await refund(books, reason=" "), Invalid)
    assert isinstance(await refund(books, author=""), Invalid)
    assert isinstance(await refund(books, amount=0), Invalid)
    assert isinstance(await refund_usage(books.pool, "nobody", "c", None, "r", author="a"), NoSuchAccount)
    assert isinstance(await refund_usage(books.pool, OTHER, "c", None, "r", author="a"), NoSuchSession)


async def test_a_key_refunds_once_and_another_input_is_an_error(books: Ledger) -> None:
    answers = await asyncio.gather(*(refund(books, key="k") for _ in range(5)))
    assert sorted(answer.entry.repeated for answer in answers) == [False, True, True, True, True]
    assert {answer.amount_micros for answer in answers} == {6 * UNIT}
    for other in ({"amount": UNIT}, {"reason": "another"}, {"kind": None}):
        assert isinstance(await refund(books, key="k", **other), Conflict), other
    assert isinstance(await credit(books.pool, ACCOUNT, UNIT, "gift", author=AUTHOR, key="k"), Conflict)


async def test_an_adjustment_may_name_the_entry_that_was_wrong(books: Ledger) -> None:
    wrong = await credit(books.pool, ACCOUNT, 5 * UNIT, "bank transfer", author=AUTHOR)
    assert isinstance(wrong, Booked)
    undone = await adjust(books.pool, ACCOUNT, -5 * UNIT, "of another customer", author="ann", corrects=wrong.entry_id)
    assert isinstance(undone, Booked)
    link = await books.pool.fetchval("select corrects_id from journal where id = $1", undone.entry_id)
    assert link == wrong.entry_id
    for entry in (10**9, await books.pool.fetchval("select id from journal where account_id = $1", OTHER)):
        refused = await adjust(books.pool, ACCOUNT, -1, "r", author="ann", corrects=entry)
        assert isinstance(refused, Invalid)
        assert refused.field == "corrects"
    await books.verified()


async def test_r5_a_goodwill_credit_and_a_refund_make_nobody_due(books: Ledger) -> None:
    await credit(books.pool, ACCOUNT, UNIT, "sorry", author="ann", origin="goodwill")
    await refund(books)
    row = await books.pool.fetchrow("select * from balances where account_id = $1", ACCOUNT)
    assert (row["credit_micros"], row["used_micros"], row["excluded_micros"]) == (27 * UNIT, 6_500_000, 0)
    assert (
        await books.pool.fetchval("select sum(amount_micros) from postings where ledger_account = 'goodwill'") == -UNIT
    )


async def test_refunds_at_once_give_back_the_price_once(books: Ledger) -> None:
    done = await asyncio.gather(*(refund(books, amount=2 * UNIT) for _ in range(8)))
    assert sum(isinstance(answer, Refunded) for answer in done) == 3
    await books.verified()


# --- what the database holds, whoever writes ----------------------------------------------------------------------

ENTRY = """
with entry as (
    insert into journal (kind, origin, author, reason, account_id, ledger_seq, corrects_id)
    values ('entry', $1, $2, $3, $4, 2, $6) returning id
), line as (
    insert into postings (journal_id, ledger_account, account_id, partition, currency, amount_micros)
    select id, 'customer', $4, null, 'USD', $5::bigint from entry
    union all select id, 'revenue', null, 0, 'USD', -$5::bigint from entry
)
select id from entry
"""


async def write(books: Ledger, origin: str, amount: int, link: dict[str, Any] | None, **terms: Any) -> None:
    """A correction as someone without our code would write it."""
    async with books.pool.acquire() as connection, connection.transaction():
        entry = await connection.fetchval(
            ENTRY, origin, terms.get("author", "x"), terms.get("reason", "y"), ACCOUNT, amount, terms.get("corrects")
        )
        if link is not None:
            row = {"account_id": ACCOUNT, "kind": "call", "session_id": "c", "journal_id": entry} | link
            columns = ", ".join(row)
            values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
            await connection.execute(f"insert into usage_corrections ({columns}) values ({values})", *row.values())


UNSOUND: list[tuple[str, int, dict[str, Any] | None, dict[str, Any], str]] = [
    ("refund", UNIT, None, {}, "correction_sum"),
    ("refund", UNIT, {"amount_micros": UNIT - 1}, {}, "correction_sum"),
    ("refund", 7 * UNIT, {"amount_micros": 7 * UNIT}, {}, "correction_bounded"),
    ("refund", UNIT, {"amount_micros": UNIT, "session_id": "x"}, {}, "correction_bounded"),
    ("adjustment", UNIT, {"amount_micros": UNIT}, {}, "correction_entry"),
    ("refund", UNIT, {"amount_micros": UNIT, "journal_id": 1}, {}, "correction_entry"),
    ("refund", UNIT, {"amount_micros": UNIT}, {"reason": " "}, "correction_attributed"),
    ("adjustment", UNIT, None, {"author": ""}, "correction_attributed"),
    ("chargeback", -UNIT, None, {}, "correction_linked"),
    ("chargeback", -UNIT, None, {"corrects": 1}, "corrects_an_entry"),
    ("credit", UNIT, None, {"corrects": 1}, "correction_linked"),
    ("adjustment", UNIT, None, {"corrects": 10**9}, "corrects_an_entry"),
]


async def test_r6_the_database_refuses_a_correction_that_is_not_linked_bounded_and_attributed(books: Ledger) -> None:
    for origin, amount, link, terms, rule in UNSOUND:
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await write(books, origin, amount, link, **terms)
        assert refused.value.constraint_name == rule, (origin, link, terms)
    assert await books.count("usage_corrections") == 0
    await refund(books)
    for statement in ("update usage_corrections set amount_micros = 1", "delete from usage_corrections",
                      "truncate usage_corrections", "truncate rerates cascade"):  # fmt: skip
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await books.pool.execute(statement)
