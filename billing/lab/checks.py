"""What must hold after the traffic: each check has a name and says in a line what it saw. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from billing.lab.books import Ledger, Store
from billing.lab.expected import Expected
from billing.lab.population import DemoAccount


class Check(NamedTuple):
    """`detail` says what was seen, in words for the report."""

    name: str
    passed: bool
    detail: str


def book_checks(
    expected: Expected,
    accounts: Sequence[DemoAccount],
    store: Store,
    ledger: Ledger,
    credited: Mapping[str, int] | None = None,
) -> list[Check]:
    """Both books against each other and against what was sent. `credited` is what accounts got (micro-units, below 0:
    what was taken) beyond what they were opened with."""
    return [
        _sessions(expected, ledger),
        _dead_letters(expected, ledger),
        _findings(expected, ledger),
        _zero_sums(ledger),
        _same_balances(accounts, store, ledger),
        _expected_charges(expected, accounts, store, ledger, credited or {}),
    ]


def position_check(name: str, ends: Mapping[int, int], positions: Mapping[int, int]) -> Check:
    """A book has taken in everything up to the log's end as it was after the last record."""
    missing = sum(max(0, end - positions.get(partition, 0)) for partition, end in ends.items())
    total = sum(ends.values())
    return Check(name, missing == 0, f"{total - missing:,} of {total:,} records of the log")


def hold_check(expected: Expected, store: Store, log_time_ms: int) -> Check:
    """Open holds are those of sessions without a completion, amounts included. One whose lease has run out by
    `log_time_ms`, or is about to, may be gone."""
    wrong = [
        key
        for key, hold in store.holds.items()
        if key not in expected.open_holds or expected.open_holds[key] != (hold.elapsed, hold.amount)
    ]
    gone = [key for key in expected.open_holds if key not in store.holds and expected.lasts(key, log_time_ms)]
    held = Counter[str]()
    for key, hold in store.holds.items():
        held[key.account] += hold.amount
    off = [account for account, record in store.accounts.items() if record.held != held[account]]
    detail = f"{len(store.holds):,} open holds"
    if wrong or gone or off:
        detail += f": {len(wrong)} unexpected, {len(gone)} missing, {len(off)} accounts hold another sum"
    return Check("open_holds_are_unfinished_sessions", not (wrong or gone or off), detail)


def _sessions(expected: Expected, ledger: Ledger) -> Check:
    missing = expected.settled.keys() - ledger.settled.keys()
    extra = ledger.settled.keys() - expected.settled.keys()
    other = [key for key, amount in ledger.settled.items() if expected.settled.get(key, amount) != amount]
    detail = f"{len(ledger.settled):,} sessions, {expected.duplicates:,} duplicate completions recognised"
    if missing or extra or other:
        detail = f"{len(missing)} missing, {len(extra)} unexpected, {len(other)} at another price"
        detail += example([*missing, *extra, *other])
    return Check("every_session_settled_once", not (missing or extra or other), detail)


def _dead_letters(expected: Expected, ledger: Ledger) -> Check:
    sent = Counter((reason.value, message.key, message.value) for message, reason in expected.poison)
    stored = Counter((row.reason, row.key, row.value) for row in ledger.dead_letters)
    detail = f"{stored.total():,} with {len({row.reason for row in ledger.dead_letters})} reasons, their bytes kept"
    if sent != stored:
        missing, extra = sent - stored, stored - sent
        detail = f"missing {_by_reason(missing)}, unexpected {_by_reason(extra)}"
        detail += example([*extra, *missing])
    return Check("dead_letters_are_the_poison", sent == stored, detail)


def _findings(expected: Expected, ledger: Ledger) -> Check:
    sent = Counter(("differing_completion", key) for key in expected.differing)
    found = Counter(ledger.findings)
    detail = f"{found.total():,} second completions that say something else, sent on purpose"
    if sent != found:
        detail = f"{(sent - found).total()} missing, {(found - sent).total()} unexpected"
        detail += example([*(found - sent), *(sent - found)])
    return Check("findings_are_the_differing_completions", sent == found, detail)


def _zero_sums(ledger: Ledger) -> Check:
    off = {currency: total for currency, total in ledger.sums.items() if total}
    detail = f"{', '.join(sorted(ledger.sums))} each sum to zero" if not off else f"off by {off}"
    return Check("books_sum_to_zero", not off and bool(ledger.sums), detail)


def _same_balances(accounts: Sequence[DemoAccount], store: Store, ledger: Ledger) -> Check:
    ids = {account.id for account in accounts} | store.accounts.keys() | ledger.balances.keys() | store.unknown.keys()
    live = {account: record.credit - record.used for account, record in store.accounts.items()}
    different = [a for a in sorted(ids) if a not in live or live[a] != ledger.balances.get(a)]
    detail = f"{len(ids) - len(different):,} of {len(ids):,} accounts"
    if store.unknown:
        detail += f", {len(store.unknown)} unknown ({', '.join(sorted(set(store.unknown.values())))})"
    return Check("redis_equals_ledger", not different, detail + example(different))


def _expected_charges(
    expected: Expected, accounts: Sequence[DemoAccount], store: Store, ledger: Ledger, credited: Mapping[str, int]
) -> Check:
    wrong = []
    for account in accounts:
        charged = expected.charged.get(account.id, 0)
        credit = account.credit_micros + credited.get(account.id, 0)
        record = store.accounts.get(account.id)
        sound = (
            record is not None
            and (record.credit, record.used) == (credit, charged)
            and (ledger.used.get(account.id), ledger.balances.get(account.id))
            == (charged, credit - charged)
        )
        if not sound:
            wrong.append(account.id)
    detail = f"{len(accounts) - len(wrong):,} of {len(accounts):,} accounts, priced a second time by the demo"
    return Check("charges_as_expected", not wrong, detail + example(wrong))


def _by_reason(letters: Mapping[tuple[str, bytes | None, bytes | None], int]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (reason, _, _), count in letters.items():
        counts[reason] += count
    return dict(counts)


def example(things: Sequence[object]) -> str:
    """The first of them, for a detail."""
    return f" (for example {str(things[0])[:300]})" if things else ""
