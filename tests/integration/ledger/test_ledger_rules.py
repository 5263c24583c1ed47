"""The rules that the database itself holds, whoever writes (R6)."""

from __future__ import annotations

import asyncpg
import pytest
from ledger_support import AUTHOR, Ledger, charge, dead_letter, names

from billing.ledger.booking import Booked, adjust, credit
from billing.ledger.corrections import Refunded, refund_usage
from billing.ledger.database import Pool
from billing.ledger.verify import CHECKS, run_checks, verify


@pytest.fixture
async def books(ledger: Ledger) -> Ledger:
    """A ledger with something in every table."""
    one, two = names(0, 2)
    await ledger.open(one, two, credit_micros=5_000_000)
    await credit(ledger.pool, one, 1_000_000, "thanks", author=AUTHOR)
    owner = await ledger.claim()
    await ledger.settle(owner, 0, [charge(0, one, "a"), charge(1, one, "a", 7), charge(2, two, "b"), dead_letter(3)])
    assert isinstance(await refund_usage(ledger.pool, two, "b", 5, "bad line", author=AUTHOR), Refunded)
    wrong = await ledger.pool.fetchval("select id from journal where origin = 'credit'")
    assert isinstance(await adjust(ledger.pool, one, -1, "too much", author=AUTHOR, corrects=wrong), Booked)
    return ledger


async def test_r6_what_was_booked_is_never_updated_or_deleted(books: Ledger) -> None:
    columns = {"journal": "author", "postings": "currency", "findings": "kind", "incarnations": "reason"}
    columns |= dict.fromkeys(("usage", "usage_0", "usage_7"), "status")
    columns |= {"dead_letters": "detail", "tariffs": "author", "tariff_rates": "match", "plan_assignments": "plan"}
    for table, column in columns.items():
        for statement in (
            f"update {table} set {column} = {column}",
            f"delete from {table}",
            f"truncate {table} cascade",
        ):
            with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
                await books.pool.execute(statement)


async def book(pool: Pool, *lines: tuple[str, int]) -> None:
    """An entry with these (currency, amount) lines, as someone without our code would write it."""
    async with pool.acquire() as connection, connection.transaction():
        entry = await connection.fetchval(
            "insert into journal (kind, origin, author, account_id, ledger_seq)"
            " values ('entry', 'credit', 'x', 'someone', 99) returning id"
        )
        await connection.execute(
            "insert into postings (journal_id, ledger_account, currency, amount_micros)"
            " select $1, 'suspense', * from unnest($2::text[], $3::bigint[])",
            *(entry, [currency for currency, _ in lines], [amount for _, amount in lines]),
        )


async def test_r6_an_entry_that_does_not_sum_to_zero_per_currency_is_refused(books: Ledger) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="is off by 5 micro-units of USD"):
        await book(books.pool, ("USD", 5))
    with pytest.raises(asyncpg.CheckViolationError, match=r"is off by -?5 micro-units of"):
        await book(books.pool, ("USD", 5), ("EUR", -5))
    await book(books.pool, ("USD", 5), ("USD", -5))


async def test_r6_nothing_is_added_to_an_entry_of_another_transaction(books: Ledger) -> None:
    entry = await books.pool.fetchval("select max(id) from journal")
    with pytest.raises(asyncpg.CheckViolationError, match="never added to"):
        await books.pool.execute(
            "insert into postings (journal_id, ledger_account, currency, amount_micros)"
            " values ($1, 'suspense', 'USD', 5), ($1, 'goodwill', 'USD', -5)",
            entry,
        )


async def test_r6_entries_are_not_dated_back(books: Ledger) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="time of booking"):
        await books.pool.execute(
            "insert into journal (kind, author, account_id, ledger_seq, booked_at)"
            " values ('changed', 'x', 'y', 9, now() - interval '1 day')"
        )


async def test_the_books_of_a_used_ledger_verify(books: Ledger) -> None:
    checks = await verify(books.pool)
    assert [check.name for check in checks] == list(CHECKS)
    assert all(check.passed for check in checks), checks


REVENUE = "update postings set amount_micros = amount_micros + 1 where ledger_account = 'revenue'"
DAMAGE = [
    (REVENUE, "books_sum_to_zero"),
    (REVENUE, "entries_sum_to_zero"),
    (REVENUE, "usage_equals_journal"),
    ("delete from journal where kind = 'settlement'", "postings_have_entries"),
    ("delete from postings", "postings_have_entries"),
    ("update balances set credit_micros = credit_micros + 1", "balances_equal_postings"),
    ("update balances set used_micros = used_micros + 1, credit_micros = credit_micros + 1", "used_equals_usage"),
    ("update balances set last_charged_offset = 77", "used_equals_usage"),
    ("update usage set amount_micros = amount_micros + 1", "used_equals_usage"),
    ("update usage set log_offset = 3000", "usage_equals_journal"),
    ("update balances set ledger_seq = ledger_seq + 1", "entries_are_in_sequence"),
    ("delete from outbox where ledger_seq = 2", "outbox_is_the_tail"),
    ("delete from plan_assignments", "accounts_are_whole"),
    ("delete from balances", "accounts_are_whole"),
    ("update usage set currency = 'EUR'", "usage_is_in_place"),
    ("update positions set next_offset = 1", "usage_is_in_place"),
    ("update positions set next_offset = 1", "dead_letters_are_in_place"),
    ("update journal set origin = 'recharge' where origin = 'credit'", "recharges_are_booked"),
    ("update usage_corrections set amount_micros = 1", "corrections_equal_entries"),
    ("update usage_corrections set session_id = 'x'", "corrections_fit_usage"),
    ("update journal set corrects_id = 1000000 where corrects_id is not null", "corrected_entries_are_there"),
    ("insert into archived_accounts values ('x', 3, 0, null)", "archives_add_up"),
]


async def test_verify_names_what_is_wrong(books: Ledger) -> None:
    async with books.pool.acquire() as connection:
        for damage, broken in DAMAGE:
            undone = connection.transaction()
            await undone.start()
            await connection.execute("set local session_replication_role = replica")  # triggers off
            await connection.execute(damage)
            failed = {check.name: check for check in await run_checks(connection) if not check.passed}
            await undone.rollback()
            assert broken in failed, damage
            assert failed[broken].example
    assert {broken for _, broken in DAMAGE} == set(CHECKS)
