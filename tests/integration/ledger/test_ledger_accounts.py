"""Opening, importing, changing and crediting accounts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from ledger_support import AUTHOR, RATES, Ledger, charge, names

from billing.ledger.accounts import Account, close, list_accounts, set_account, show
from billing.ledger.booking import Acknowledged, Booked, acknowledge_debits, adjust, credit
from billing.ledger.opening import import_accounts, open_account
from billing.ledger.tariffs import load_tariff
from billing.ledger.terms import (
    AlreadyOpen,
    Changed,
    Changes,
    Closed,
    Conflict,
    CurrencyMismatch,
    Imported,
    ImportRefused,
    Invalid,
    NewAccount,
    NoSuchAccount,
    Opened,
    Unchanged,
    UnknownPlan,
)

CARD: dict[str, Any] = {"recharge_below_micros": 5_000_000, "recharge_by_micros": 20_000_000, "payment_method": "pm_1"}
NO_CARD: dict[str, Any] = dict.fromkeys(CARD)
ALICE = NewAccount("alice", "USD", "basic", credit_micros=20_000_000, **CARD)


async def opened(ledger: Ledger, new: NewAccount = ALICE) -> Account:
    assert isinstance(await open_account(ledger.pool, new, author=AUTHOR), Opened | AlreadyOpen)
    found = await show(ledger.pool, new.id)
    assert isinstance(found, Account)
    return found


async def outbox(ledger: Ledger, account: str) -> list[tuple[int, str, dict[str, Any]]]:
    rows = await ledger.pool.fetch("select * from outbox where account_id = $1 order by id", account)
    return [(row["ledger_seq"], row["type"], msgspec.json.decode(row["data"])) for row in rows]


async def test_opening_books_the_credit_and_announces_it_in_one_entry(ledger: Ledger) -> None:
    account = await opened(ledger)
    assert (account.balance_micros, account.ledger_seq, account.status) == (20_000_000, 1, "open")
    ((seq, type_, data),) = await outbox(ledger, "alice")
    assert (seq, type_) == (1, "ledger.account.opened.v1")
    assert (data["credit_micros"], data["usage_position"], data["home_partition"]) == (20_000_000, 0, 5)
    assert (data["recharge_below_micros"], data["credit_limit_micros"]) == (5_000_000, 0)
    await ledger.verified()


async def test_an_identical_repeat_is_fine_whatever_happened_since(ledger: Ledger) -> None:
    await opened(ledger)
    await credit(ledger.pool, "alice", 1, "x", author=AUTHOR)
    await set_account(ledger.pool, "alice", Changes(credit_limit_micros=9), author=AUTHOR)
    assert isinstance(await open_account(ledger.pool, ALICE, author="someone else"), AlreadyOpen)
    assert len(await outbox(ledger, "alice")) == 3


async def test_a_differing_repeat_names_the_field(ledger: Ledger) -> None:
    await load_tariff(ledger.pool, "gold", RATES, "USD", author=AUTHOR)
    await opened(ledger)
    for field, value in {
        "credit_micros": 1,
        "plan": "gold",
        "credit_limit_micros": 1,
        "recharge_below_micros": 1,
        "customer": "cus_1",
    }.items():
        answer = await open_account(ledger.pool, replace(ALICE, **{field: value}), author=AUTHOR)
        assert isinstance(answer, Conflict)
        assert (answer.field, answer.given) == (field, value)


async def test_plans_and_currencies_must_fit(ledger: Ledger) -> None:
    await load_tariff(ledger.pool, "euro", RATES, "EUR", author=AUTHOR)
    answer = await open_account(ledger.pool, replace(ALICE, plan="none"), author=AUTHOR)
    assert answer == UnknownPlan("alice", "none")
    answer = await open_account(ledger.pool, replace(ALICE, plan="euro"), author=AUTHOR)
    assert answer == CurrencyMismatch("alice", "euro", "EUR", "USD")
    assert await show(ledger.pool, "alice") == NoSuchAccount("alice")


async def test_ten_openings_of_one_account_open_it_once(ledger: Ledger) -> None:
    results = await asyncio.gather(*(open_account(ledger.pool, ALICE, author=AUTHOR) for _ in range(10)))
    assert sorted(type(result).__name__ for result in results) == ["AlreadyOpen"] * 9 + ["Opened"]
    await ledger.verified()


async def test_an_import_is_all_or_nothing_and_names_the_first_conflicting_row(ledger: Ledger) -> None:
    rows = [NewAccount(f"a{i:05d}", "USD", "basic", credit_micros=i) for i in range(3000)]
    assert await import_accounts(ledger.pool, rows[:1000], author=AUTHOR) == Imported(1000, 0)
    wrong = [*rows[:2500], replace(rows[7], credit_micros=99), replace(rows[8], credit_micros=99)]
    answer = await import_accounts(ledger.pool, wrong, author=AUTHOR)
    assert answer == ImportRefused(2501, Conflict("a00007", "credit_micros", 7, 99))
    answer = await import_accounts(ledger.pool, [rows[1500], replace(rows[7], plan="none")], author=AUTHOR)
    assert answer == ImportRefused(2, Conflict("a00007", "plan", "basic", "none"))
    answer = await import_accounts(ledger.pool, [rows[1500], replace(rows[1501], plan="none")], author=AUTHOR)
    assert answer == ImportRefused(2, UnknownPlan("a01501", "none"))
    assert await ledger.count("accounts") == 1000
    assert await import_accounts(ledger.pool, rows, author=AUTHOR) == Imported(2000, 1000)
    assert [account.id async for account in list_accounts(ledger.pool)] == [row.id for row in rows]
    await ledger.verified()


async def test_overlapping_imports_at_once_both_succeed(ledger: Ledger) -> None:
    rows = [NewAccount(f"a{i:05d}", "USD", "basic") for i in range(600)]
    halves = [rows[:400], rows[200:][::-1], rows[100:300]]
    results = await asyncio.gather(*(import_accounts(ledger.pool, half, author=AUTHOR) for half in halves))
    assert sum(result.opened for result in results if isinstance(result, Imported)) == 600
    await ledger.verified()


async def test_the_same_key_credits_once_and_other_input_is_a_conflict(ledger: Ledger) -> None:
    await opened(ledger)
    await opened(ledger, replace(ALICE, id="bob"))

    async def pay(amount_micros: int = 5_000_000, account: str = "alice") -> Any:
        return await credit(ledger.pool, account, amount_micros, "cash", author=AUTHOR, key="k1")

    results = await asyncio.gather(*(pay() for _ in range(12)))
    assert sorted(result.repeated for result in results) == [False] + [True] * 11
    assert len({result.entry_id for result in results}) == 1
    assert isinstance(await pay(6_000_000), Conflict)
    assert isinstance(await pay(account="bob"), Conflict)
    account = await show(ledger.pool, "alice")
    assert isinstance(account, Account)
    assert account.balance_micros == 25_000_000
    assert [seq for seq, _, _ in await outbox(ledger, "alice")] == [1, 2]
    await ledger.verified()


async def test_one_key_on_two_accounts_at_once_is_booked_once(ledger: Ledger) -> None:
    accounts = names(0, 6)
    await ledger.open(*accounts)
    results = await asyncio.gather(
        *(credit(ledger.pool, account, 5, "cash", author=AUTHOR, key="one") for account in accounts)
    )
    assert sorted(type(result).__name__ for result in results) == ["Booked"] + ["Conflict"] * 5
    await ledger.verified()


async def test_credits_and_settlements_at_once_lose_nothing(ledger: Ledger) -> None:
    accounts = names(0, 5)
    await ledger.open(*accounts)
    owner = await ledger.claim()

    async def usage() -> None:
        end = 0
        while end < 200:
            ops = [charge(end + i, account, f"s{end + i}", 3) for i, account in enumerate(accounts * 4)]
            end = await ledger.settle(owner, end, ops)

    credits = [credit(ledger.pool, account, 10, "x", author=AUTHOR) for account in accounts * 10]
    await asyncio.gather(usage(), *credits)
    async for account in list_accounts(ledger.pool):
        assert (account.balance_micros, account.ledger_seq) == (100 - 120, 11)
    await ledger.verified()


async def test_r5_debits_other_than_usage_are_excluded_until_acknowledged(ledger: Ledger) -> None:
    await opened(ledger)
    assert isinstance(await adjust(ledger.pool, "alice", -6_000_000, "mistake", author=AUTHOR), Booked)
    assert isinstance(await adjust(ledger.pool, "alice", 1_000_000, "mistake", author=AUTHOR), Booked)
    account = await show(ledger.pool, "alice")
    assert isinstance(account, Account)
    assert (account.balance_micros, account.excluded_micros) == (15_000_000, 6_000_000)
    assert await acknowledge_debits(ledger.pool, "alice", "seen", author=AUTHOR) == Acknowledged("alice", 4, 6_000_000)
    types = [type_ for _, type_, _ in await outbox(ledger, "alice")]
    assert types[1:] == ["ledger.entry.posted.v1"] * 2 + ["ledger.debits.acknowledged.v1"]
    await ledger.verified()


async def test_changes_are_announced_once_and_kept_with_their_author(ledger: Ledger) -> None:
    await load_tariff(ledger.pool, "gold", RATES, "USD", author=AUTHOR)
    await opened(ledger)
    changes = Changes(plan="gold", **NO_CARD, status="suspended")
    answer = await set_account(ledger.pool, "alice", changes, author="op", reason="asked")
    assert isinstance(answer, Changed)
    assert answer.plan_effective_ms is not None
    assert await set_account(ledger.pool, "alice", changes, author="op") == Unchanged("alice", 2)
    _, (seq, type_, data) = await outbox(ledger, "alice")
    assert (seq, type_, data["plan"], data["status"]) == (2, "ledger.account.changed.v1", "gold", "suspended")
    assert data["recharge_below_micros"] is None
    row = await ledger.pool.fetchrow("select author, reason, detail from journal where ledger_seq = 2")
    assert (row["author"], row["reason"]) == ("op", "asked")
    assert msgspec.json.decode(row["detail"])["from"]["plan"] == "basic"
    await ledger.verified()


@pytest.mark.parametrize("missing", sorted(CARD))
async def test_recharge_terms_are_complete_or_absent(ledger: Ledger, missing: str) -> None:
    nothing: dict[str, Any] = {missing: None}
    incomplete = replace(ALICE, **nothing)
    answer = await open_account(ledger.pool, incomplete, author=AUTHOR)
    assert answer == Invalid(
        "alice", missing, "is missing: recharge_below, recharge_by and payment_method come together"
    )
    imported = await import_accounts(ledger.pool, [replace(ALICE, id="bob"), incomplete], author=AUTHOR)
    assert isinstance(imported, ImportRefused)
    assert imported.row == 2
    await opened(ledger)
    assert isinstance(await set_account(ledger.pool, "alice", Changes(**nothing), author=AUTHOR), Invalid)
    assert isinstance(await set_account(ledger.pool, "alice", Changes(customer="cus_9"), author=AUTHOR), Changed)
    assert isinstance(await set_account(ledger.pool, "alice", Changes(**NO_CARD), author=AUTHOR), Changed)


async def test_r10_an_increment_is_whole_minor_units_of_the_currency(ledger: Ledger) -> None:
    await load_tariff(ledger.pool, "yen", RATES, "JPY", author=AUTHOR)
    half_a_cent = replace(ALICE, recharge_by_micros=20_005_000)
    answer = await open_account(ledger.pool, half_a_cent, author=AUTHOR)
    assert answer == Invalid("alice", "recharge_by_micros", "must be a multiple of 0.01 USD")
    await opened(ledger)
    assert isinstance(await set_account(ledger.pool, "alice", Changes(recharge_by_micros=1), author=AUTHOR), Invalid)
    yen = replace(ALICE, id="kyoto", currency="JPY", plan="yen", recharge_by_micros=20_500_000)
    answer = await open_account(ledger.pool, yen, author=AUTHOR)
    assert answer == Invalid("kyoto", "recharge_by_micros", "must be a multiple of 1 JPY")
    assert isinstance(
        await open_account(ledger.pool, replace(yen, recharge_by_micros=20_000_000), author=AUTHOR), Opened
    )


async def test_closing_is_final_but_the_balance_is_still_owed(ledger: Ledger) -> None:
    await opened(ledger)
    assert isinstance(await close(ledger.pool, "alice", author=AUTHOR), Changed)
    assert isinstance(await close(ledger.pool, "alice", author=AUTHOR), Unchanged)
    assert await set_account(ledger.pool, "alice", Changes(status="open"), author=AUTHOR) == Closed("alice")
    assert isinstance(await credit(ledger.pool, "alice", 1, "late payment", author=AUTHOR), Booked)


async def test_two_changes_at_once_see_each_other(ledger: Ledger) -> None:
    await opened(ledger)
    await asyncio.gather(
        *(set_account(ledger.pool, "alice", Changes(credit_limit_micros=i), author=AUTHOR) for i in range(1, 9)),
        *(set_account(ledger.pool, "alice", Changes(daily_cap_micros=i), author=AUTHOR) for i in range(1, 9)),
    )
    account = await show(ledger.pool, "alice")
    assert isinstance(account, Account)
    last = (await outbox(ledger, "alice"))[-1][2]
    assert last["credit_limit_micros"] == account.credit_limit_micros != 0
    assert account.daily_cap_micros is not None
    await ledger.verified()


async def test_s13_an_amount_that_is_none_is_refused_on_the_way_in(ledger: Ledger) -> None:
    await opened(ledger)
    amounts: list[Any] = [0, -1, 2**53, 2**63, 1.0, float("nan"), True, "5", None]
    for amount in amounts:
        answer = await credit(ledger.pool, "alice", amount, "x", author=AUTHOR)
        assert isinstance(answer, Invalid)
        assert answer.field == "amount_micros"
        refused = await open_account(ledger.pool, NewAccount("bob", "USD", "basic", amount or -1), author=AUTHOR)
        assert isinstance(refused, Invalid)
        assert refused.field == "credit_micros"
    assert await ledger.count("journal") == 1


async def test_s13_a_total_beyond_2_to_the_53_is_refused(ledger: Ledger) -> None:
    await opened(ledger)
    answer = await credit(ledger.pool, "alice", 2**53 - 20_000_000, "x", author=AUTHOR)
    assert isinstance(answer, Invalid)
    assert isinstance(await credit(ledger.pool, "alice", 2**53 - 20_000_001, "x", author=AUTHOR), Booked)
    await ledger.verified()


async def test_credits_name_the_missing_account_and_need_a_reason(ledger: Ledger) -> None:
    assert await credit(ledger.pool, "nobody", 5, "x", author=AUTHOR) == NoSuchAccount("nobody")
    answer = await credit(ledger.pool, "nobody", 5, " ", author=AUTHOR)
    assert isinstance(answer, Invalid)
    assert answer.field == "reason"
