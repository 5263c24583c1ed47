"""Re-rating: a dry run says what applying books; a version corrects each session once, whatever the spans and kills."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import asyncpg
import msgspec
import pytest
from ledger_support import AUTHOR, RATES, Ledger, charge, eventually, names

from billing.ledger import rerate_apply
from billing.ledger.corrections import Refunded, refund_usage
from billing.ledger.rerate import Difference, EmptySpan, LaterVersion, NoSuchVersion, Span, preview, resolve
from billing.ledger.rerate_apply import Applied, Busy, apply
from billing.ledger.tariffs import NEVER_MS, AlreadyLoaded, Loaded, load_tariff
from billing.ledger.terms import Invalid
from billing.rating.tariff import Tariff
from schemas.catalogue import Rate

UNIT = 1_000_000
(ONE, TWO, THREE) = names(0, 3)
HALF, TWICE = 300_000, 1_200_000  # per minute; the first version has 600_000
LAST_MS = 2**50


async def version(ledger: Ledger, rate_micros: int) -> int:
    """A version of plan basic that only re-rates."""
    rates = [replace_rate(rate_micros)]
    answer = await load_tariff(ledger.pool, "basic", rates, "USD", author=AUTHOR, effective_ms=NEVER_MS)
    assert isinstance(answer, Loaded), answer
    return answer.version


def replace_rate(rate_micros: int) -> Rate:
    return msgspec.structs.replace(RATES[0], rate_micros=rate_micros)


@pytest.fixture
async def books(ledger: Ledger) -> Ledger:
    """ONE has three calls of 0.60 (price times 0, 10, 20), TWO one, THREE none that any tariff prices."""
    await ledger.open(ONE, TWO, THREE, credit_micros=20 * UNIT)
    owner = await ledger.claim()
    ops = [charge(i, ONE, f"c{i}", price_time_ms=10 * i) for i in range(3)]
    ops += [
        charge(3, TWO, "c", price_time_ms=10),
        charge(4, THREE, "c", destination="+4420", matched="44", price_time_ms=10),
    ]
    ops += [charge(5, THREE, "busy", 0, status="busy", matched="", price_time_ms=10)]
    await ledger.settle(owner, 0, ops)
    return ledger


async def resolved(books: Ledger, number: int | None = None, begin: int = 0, end: int = LAST_MS) -> tuple[Span, Tariff]:
    found = await resolve(books.pool, "basic", number, begin, end)
    assert isinstance(found, tuple), found
    return found


async def applied(books: Ledger, number: int | None = None, begin: int = 0, end: int = LAST_MS) -> Applied:
    answer = await apply(books.pool, *await resolved(books, number, begin, end), author="ann", reason="wrong price")
    assert isinstance(answer, Applied), answer
    await books.verified()
    return answer


async def previewed(books: Ledger, *span: Any) -> dict[str, Difference]:
    return {each.account: each async for each in preview(books.pool, *await resolved(books, *span))}


async def credits(books: Ledger) -> dict[str, tuple[int, int]]:
    rows = await books.pool.fetch("select account_id, credit_micros - 20000000 as moved, excluded_micros from balances")
    return {row["account_id"]: (row["moved"], row["excluded_micros"]) for row in rows if row["moved"]}


async def test_a_dry_run_shows_what_applying_books(books: Ledger) -> None:
    await version(books, HALF)
    shown = await previewed(books)
    assert shown[ONE] == Difference(ONE, 3, 3, 0, 1_800_000, 900_000, 0)
    assert shown[THREE] == Difference(THREE, 1, 0, 1, 600_000, 0, 0)
    assert await books.count("rerates") == 0
    done = await applied(books)
    assert (done.now, done.unpriced) == (4, 1)
    total = done.in_all
    assert (total.sessions, total.accounts, total.entries) == (4, 2, 2)
    assert (total.given_back_micros, total.charged_micros) == (1_200_000, 0)
    assert await credits(books) == {ONE: (900_000, 0), TWO: (300_000, 0)}
    entry = await books.pool.fetchrow("select * from journal where origin = 'rerate' and account_id = $1", ONE)
    assert (entry["author"], entry["reason"]) == ("ann", "wrong price")
    assert await books.pool.fetchval("select count(*) from outbox where data ->> 'origin' = 'rerate'") == 2


async def test_a_version_corrects_each_session_once_over_overlapping_spans_late_usage_too(books: Ledger) -> None:
    await version(books, HALF)
    assert (await applied(books, None, 0, 15)).now == 3  # c0, c1 and TWO's
    assert (await applied(books, None, 0, 15)).now == 0
    assert (await previewed(books, None, 5, 30))[ONE].sessions == 1
    assert (await applied(books, None, 5, 30)).now == 1  # c2
    assert (await applied(books)).now == 0
    assert await credits(books) == {ONE: (900_000, 0), TWO: (300_000, 0)}
    await books.settle(await books.claim(), 6, [charge(6, TWO, "late", price_time_ms=10)])
    again = await applied(books, None, 0, 15)
    assert (again.now, again.in_all.sessions, again.in_all.given_back_micros) == (1, 4, 1_200_000)
    assert await books.count("rerates") == 3


async def test_r5_a_dearer_version_charges_and_its_debits_make_nobody_due(books: Ledger) -> None:
    await version(books, TWICE)
    await applied(books)
    assert await credits(books) == {ONE: (-1_800_000, 1_800_000), TWO: (-600_000, 600_000)}


async def test_versions_follow_each_other_and_an_older_one_does_not_come_back(books: Ledger) -> None:
    first, second = await version(books, HALF), await version(books, TWICE)
    await applied(books, first)
    assert await resolve(books.pool, "basic", second, 5, 5) == EmptySpan()
    await applied(books, second, 5, 15)
    # c1 and TWO's were given 0.30 back, then charged 0.90
    assert await credits(books) == {TWO: (-600_000, 900_000)}
    answer = await resolve(books.pool, "basic", first, 0, LAST_MS)
    assert isinstance(answer, LaterVersion)
    assert answer.version == second
    assert await resolve(books.pool, "basic", 9, 0, 1) == NoSuchVersion("basic", 9)
    assert await resolve(books.pool, "gold", None, 0, 1) == NoSuchVersion("gold", None)


async def test_a_refund_stays_when_its_session_is_re_rated(books: Ledger) -> None:
    for session, amount in (("c0", None), ("c1", 500_000), ("c2", 100_000)):
        answer = await refund_usage(books.pool, ONE, session, amount, "bad line", author="ann")
        assert isinstance(answer, Refunded)
    await version(books, HALF)
    await applied(books)
    # c0 stays at nothing; c1 cost 0.10 and now nothing; c2 cost 0.50 and now 0.20
    moved = await books.pool.fetch("select session_id, amount_micros from usage_corrections where rerate_id is not null"
                                   " and account_id = $1 order by 1", ONE)  # fmt: skip
    assert [tuple(row) for row in moved] == [("c1", 100_000), ("c2", 300_000)]
    assert await credits(books) == {ONE: (1_200_000 + 400_000, 0), TWO: (300_000, 0)}


async def test_one_re_rating_of_a_plan_at_a_time_in_bounded_batches(
    books: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await version(books, HALF)
    span, tariff = await resolved(books)
    answers = await asyncio.gather(*(apply(books.pool, span, tariff, author="ann", reason="r") for _ in range(4)))
    assert all(isinstance(answer, Applied | Busy) for answer in answers)
    assert sum(answer.now for answer in answers if isinstance(answer, Applied)) == 4
    assert isinstance(await apply(books.pool, span, tariff, author="", reason="r"), Invalid)
    await books.verified()
    monkeypatch.setattr(rerate_apply, "BATCH_SESSIONS", 2)
    monkeypatch.setattr(rerate_apply, "PAGE_ACCOUNTS", 1)
    await version(books, TWICE)
    done = await applied(books)
    assert (done.now, done.in_all.entries, done.in_all.charged_micros) == (4, 3, 3_600_000)


async def test_r6_the_database_refuses_a_session_of_another_span_or_an_older_version(books: Ledger) -> None:
    first, second = await version(books, HALF), await version(books, TWICE)
    await applied(books, second, 0, 15)
    book = """
        with run as (insert into rerates (plan, tariff_version, from_ms, to_ms, author, reason)
                     values ('basic', $1, $2, $3, 'x', 'y') returning id),
        entry as (insert into journal (kind, origin, author, reason, account_id, ledger_seq)
                  values ('entry', 'rerate', 'x', 'y', $4, 9) returning id),
        line as (insert into postings (journal_id, ledger_account, account_id, partition, currency, amount_micros)
                 select id, 'customer', $4, null, 'USD', 5 from entry
                 union all select id, 'revenue', null, 0, 'USD', -5 from entry)
        insert into usage_corrections (account_id, kind, session_id, journal_id, amount_micros, rerate_id,
                                       tariff_version, price_micros)
        select $4, 'call', $5, entry.id, 5, run.id, $1, 1 from run, entry
    """
    for number, begin, end, session in ((first, 0, 15, "c0"), (second, 16, 30, "c0"), (second, 0, 16, "c0")):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await books.pool.execute(book, number, begin, end, ONE, session)


async def test_a_version_for_re_rating_prices_nothing_and_the_same_rates_may_still_be_loaded_to_price(
    books: Ledger,
) -> None:
    number = await version(books, HALF)
    rates = [replace_rate(HALF)]
    same = await load_tariff(books.pool, "basic", rates, "USD", author=AUTHOR, effective_ms=NEVER_MS)
    assert same == AlreadyLoaded("basic", number, NEVER_MS)
    live = await load_tariff(books.pool, "basic", rates, "USD", author=AUTHOR)
    assert isinstance(live, Loaded)
    assert (live.version, live.effective_ms < NEVER_MS) == (number + 1, True)


KILLED = """
import asyncio, sys
from billing.ledger import rerate_apply
from billing.ledger.database import open_pool
from billing.ledger.rerate import resolve
rerate_apply.BATCH_SESSIONS, rerate_apply.PAGE_ACCOUNTS = 10, 5
async def main():
    pool = await open_pool(sys.argv[1])
    found = await resolve(pool, "basic", None, 0, 2**50)
    await rerate_apply.apply(pool, *found, author="ann", reason="wrong price")
asyncio.run(main())
"""


async def test_killed_in_the_middle_it_goes_on_and_the_totals_are_exact(ledger: Ledger) -> None:
    accounts = names(0, 40)
    await ledger.open(*accounts, credit_micros=20 * UNIT)
    ops = [charge(i, accounts[i % 40], f"s{i}") for i in range(1200)]
    await ledger.settle(await ledger.claim(), 0, ops)
    await version(ledger, HALF)
    for enough in (50, 400):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, ledger.settings.owner_dsn)

        async def some(enough: int = enough) -> bool:
            return await ledger.count("usage_corrections") >= enough

        await eventually(some, 20)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await ledger.verified()
    before = await ledger.count("usage_corrections")
    assert before < 1200
    done = await applied_after_kill(ledger)
    assert done.in_all.sessions == 1200
    assert done.in_all.given_back_micros == 1200 * 300_000
    assert await ledger.pool.fetchval("select sum(credit_micros) from balances") == 40 * 20 * UNIT + 1200 * 300_000


async def applied_after_kill(ledger: Ledger) -> Applied:
    """The killed session's lock goes when the server notices."""
    while True:
        answer = await apply(ledger.pool, *await resolved(ledger), author="ann", reason="wrong price")
        if isinstance(answer, Applied):
            await ledger.verified()
            return answer
        assert isinstance(answer, Busy)
        await asyncio.sleep(0.1)
