"""Statements: opening + lines = closing, closing = next opening, whatever was booked; any sequence keeps the books."""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from ledger_support import AUTHOR, RATES, Ledger, charge, names

from billing.cli.statement_text import as_csv, as_json, as_text
from billing.ledger.booking import Booked, adjust, credit
from billing.ledger.corrections import Refunded, TooMuch, refund_usage
from billing.ledger.rerate import resolve
from billing.ledger.rerate_apply import Applied, apply
from billing.ledger.statement import DoesNotAddUp, EntryLine, Month, Statement, UsageLine, statement
from billing.ledger.tariffs import NEVER_MS, Loaded, load_tariff
from billing.ledger.terms import NoSuchAccount
from billing.money import MICROS_PER_UNIT, format_micros, parse_micros
from billing.rating.reprice import given_back

UNIT = MICROS_PER_UNIT
ACCOUNTS = names(0, 3)
MONTHS = [Month.parse(f"2026-{number:02}") for number in range(1, 7)]


async def month_of(ledger: Ledger, account: str, month: Month | None) -> Statement:
    assert month is not None
    found = await statement(ledger.pool, account, month)
    assert isinstance(found, Statement)
    return found


async def backdate(ledger: Ledger, month_of_entry: dict[int, datetime] | random.Random) -> None:
    """Spread the entries over half a year, as if they had been booked then."""
    async with ledger.pool.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")  # triggers off
        await connection.execute("update accounts set opened_at = '2025-12-31'")
        ids = [row["id"] for row in await connection.fetch("select id from journal order by id")]
        if isinstance(month_of_entry, dict):
            moments = [month_of_entry.get(entry) for entry in ids]
        else:
            begin = datetime(2026, 1, 1, tzinfo=UTC)
            moments = [begin + timedelta(seconds=month_of_entry.randrange(181 * 86_400)) for _ in ids]
        for entry, moment in zip(ids, moments, strict=True):
            if moment is not None:
                await connection.execute("update journal set booked_at = $2 where id = $1", entry, moment)


class Operator:
    """Does random things to ACCOUNTS and reckons in parallel what the balances must be."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.ledger = ledger
        self.random = random.Random(seed)
        self.balance: defaultdict[str, int] = defaultdict(int)
        self.net: dict[tuple[str, str], int] = {}
        self.refunded: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.offset = 0

    async def use(self) -> None:
        ops = []
        for _ in range(self.random.randrange(1, 6)):
            account, session = self.random.choice(ACCOUNTS), f"s{self.offset}"
            amount = 600_000 * self.random.randrange(3)
            ops.append(charge(self.offset, account, session, amount, quantity=amount // 10_000))
            self.net[account, session] = amount
            self.balance[account] -= amount
            self.offset += 1
        await self.ledger.settle(await self.ledger.claim(), ops[0].offset, ops)

    async def credit(self) -> None:
        await self._by_hand(self.random.randrange(1, 9_999_999), goodwill=self.random.random() < 0.5)

    async def adjust(self) -> None:
        account, amount = (
            self.random.choice(ACCOUNTS),
            self.random.choice((-1, 1)) * self.random.randrange(1, 9_999_999),
        )
        assert isinstance(await adjust(self.ledger.pool, account, amount, "mistake", author=AUTHOR), Booked)
        self.balance[account] += amount

    async def _by_hand(self, amount: int, *, goodwill: bool) -> None:
        account = self.random.choice(ACCOUNTS)
        origin: Any = "goodwill" if goodwill else "credit"
        assert isinstance(await credit(self.ledger.pool, account, amount, "r", author=AUTHOR, origin=origin), Booked)
        self.balance[account] += amount

    async def refund(self) -> None:
        if not self.net:
            return
        account, session = place = self.random.choice(list(self.net))
        left = self.net[place]
        amount = self.random.choice((None, self.random.randrange(1, 700_000)))
        answer = await refund_usage(self.ledger.pool, account, session, amount, "bad line", author=AUTHOR)
        wanted = left if amount is None else amount
        assert isinstance(answer, Refunded if 0 < wanted <= left else TooMuch)
        if isinstance(answer, Refunded):
            self.balance[account] += wanted
            self.net[place] -= wanted
            self.refunded[place] += wanted

    async def rerate(self) -> None:
        rates = [msgspec.structs.replace(RATES[0], rate_micros=60 * self.random.randrange(15_000))]
        loaded = await load_tariff(self.ledger.pool, "basic", rates, "USD", author=AUTHOR, effective_ms=NEVER_MS)
        assert isinstance(loaded, Loaded)
        found = await resolve(self.ledger.pool, "basic", None, 0, 2**50)
        assert isinstance(found, tuple)
        assert isinstance(await apply(self.ledger.pool, *found, author=AUTHOR, reason="wrong price"), Applied)
        for place, net in self.net.items():
            quantity = await self.ledger.pool.fetchval("select quantity from usage where session_id = $1", place[1])
            billed = 0 if not quantity else max(60, -(-quantity // 6) * 6)
            back = given_back(net, self.refunded[place], rates[0].rate_micros * billed // 60)
            self.net[place] -= back
            self.balance[place[0]] += back


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
async def test_r6_any_sequence_keeps_the_books_and_every_statement_adds_up(ledger: Ledger, seed: int) -> None:
    operator = Operator(ledger, seed)
    await ledger.open(*ACCOUNTS, credit_micros=20 * UNIT)
    operator.balance.update(dict.fromkeys(ACCOUNTS, 20 * UNIT))
    steps = [operator.use] * 4 + [operator.credit, operator.adjust, operator.refund, operator.refund, operator.rerate]
    for _ in range(40):
        await operator.random.choice(steps)()
    await ledger.verified()
    await backdate(ledger, operator.random)
    for account in ACCOUNTS:
        closing = 0
        for month in MONTHS:
            found = await month_of(ledger, account, month)
            assert found.opening_micros == closing
            closing = found.opening_micros + sum(line.amount_micros for line in found.lines)
            assert found.closing_micros == closing
            assert found.state == "final"
            amounts = [parse_micros(row["amount"]) for row in csv.DictReader(io.StringIO(as_csv(found)))]
            assert amounts == [found.opening_micros, *(line.amount_micros for line in in_order(found)), closing]
        assert closing == operator.balance[account] == await balance_of(ledger, account)


def in_order(found: Statement) -> list[UsageLine | EntryLine]:
    data = as_json(found)
    sections = ("calls", "messages", "items", "archived", "recharges", "credits", "corrections")
    assert [len(data[name]) for name in sections] == [len(found.section(name)) for name in sections]  # type: ignore[arg-type]
    return [line for name in sections for line in found.section(name)]  # type: ignore[arg-type]


async def balance_of(ledger: Ledger, account: str) -> int:
    sql = "select credit_micros - used_micros from balances where account_id = $1"
    found: int = await ledger.pool.fetchval(sql, account)
    return found


async def test_a_statement_says_what_for_whom_and_why(ledger: Ledger) -> None:
    (account,) = await ledger.open(ACCOUNTS[0], credit_micros=20 * UNIT)
    ops = [charge(i, account.account, f"c{i}", quantity=61) for i in range(2)]
    ops += [charge(2, account.account, "m", 90_000, kind="message", tariff_kind="sms", quantity=3)]
    ops += [
        charge(
            3,
            account.account,
            "i",
            UNIT,
            kind="item",
            tariff_kind="item",
            direction="",
            destination="did",
            matched="did",
            quantity=1,
        )
    ]
    ops += [charge(4, account.account, "free", 0)]
    await ledger.settle(await ledger.claim(), 0, ops)
    await refund_usage(ledger.pool, account.account, "c0", None, "bad line", author="ann")
    found = await month_of(ledger, account.account, Month.parse(f"{datetime.now(UTC):%Y-%m}"))
    assert found.state == "open"
    (calls,) = found.section("calls")
    assert isinstance(calls, UsageLine)
    assert (calls.sessions, calls.quantity, calls.amount_micros, calls.description) == (2, 122, -1_200_000, "Germany")
    (refund,) = found.section("corrections")
    assert isinstance(refund, EntryLine)
    assert (refund.kind, refund.about, refund.reason, refund.author) == ("refund", "call c0", "bad line", "ann")
    text = "\n".join(as_text(found))
    for words in (
        "call outbound  +49  Germany  2 calls  122 seconds",
        "3 segments",
        "item  did",
        "1 unit",
        "call c0: bad line",
    ):
        assert words in text
    assert format_micros(found.closing_micros, "USD") in text


async def test_what_is_archived_stays_on_its_statement_as_one_amount(ledger: Ledger) -> None:
    one, two = ACCOUNTS[:2]
    await ledger.open(one, two, credit_micros=20 * UNIT)
    owner, month = await ledger.claim(), Month.parse(f"{datetime.now(UTC):%Y-%m}")
    await ledger.settle(owner, 0, [charge(0, one, "a"), charge(1, one, "b"), charge(2, two, "c")])
    await ledger.settle(owner, 3, [charge(3, one, "d", 5)])
    before = await month_of(ledger, one, month)
    async with ledger.pool.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")  # as the archive command would
        await connection.execute(
            "with gone as (delete from usage where session_id in ('a', 'c') returning *)"
            " insert into archived_settlements select journal_id, currency, partition, count(*), sum(amount_micros),"
            " min(log_offset), max(log_offset) from gone group by 1, 2, 3"
        )
    after = await month_of(ledger, one, month)
    assert (after.opening_micros, after.closing_micros) == (0, before.closing_micros)
    assert [(line.section, line.amount_micros) for line in after.lines if isinstance(line, UsageLine)] == [
        ("calls", -5),
        ("archived", -1_200_000),
    ]
    assert "usage whose sessions are archived" in "\n".join(as_text(after))
    assert (await month_of(ledger, two, month)).closing_micros == 19_400_000


async def test_late_usage_books_into_the_open_month(ledger: Ledger) -> None:
    await ledger.open(ACCOUNTS[0], credit_micros=20 * UNIT)
    october = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    await backdate(ledger, {1: october})
    before = await month_of(ledger, ACCOUNTS[0], MONTHS[0])
    late = charge(0, ACCOUNTS[0], "late", log_time_ms=int(october.timestamp() * 1000))
    await ledger.settle(await ledger.claim(), 0, [late])
    assert await month_of(ledger, ACCOUNTS[0], MONTHS[0]) == before


async def test_books_that_contradict_themselves_make_no_statement(ledger: Ledger) -> None:
    await ledger.open(ACCOUNTS[0], credit_micros=20 * UNIT)
    async with ledger.pool.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(
            "update postings set ledger_account = 'suspense', account_id = null where account_id is not null"
        )
    with pytest.raises(DoesNotAddUp):
        await month_of(ledger, ACCOUNTS[0], MONTHS[0])
    assert await statement(ledger.pool, "nobody", MONTHS[0]) == NoSuchAccount("nobody")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["2026-13", "2026-1", "26-01", "2026-01-01", "", "9999-12", "1969-12"])
def test_what_is_no_month_is_refused(text: str) -> None:
    assert Month.parse(text) is None


def test_a_month_is_final_ten_minutes_after_its_end() -> None:
    month = Month.parse("2026-12")
    assert month is not None
    assert (month.begin, month.end) == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    at = [month.begin - timedelta(seconds=1), month.begin, month.end, month.end + timedelta(minutes=10)]
    assert [month.state(moment) for moment in at] == ["future", "open", "closing", "final"]
