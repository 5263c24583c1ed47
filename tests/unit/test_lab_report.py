"""Checks, rates and the report of the demo."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from billing.balance.records import AccountRecord, HoldRecord
from billing.lab.books import DeadLetterRow, Ledger, Store
from billing.lab.checks import Check, book_checks, hold_check, position_check
from billing.lab.expected import Expected, SessionKey
from billing.lab.measure import Meter, Throughput
from billing.lab.observe import Moment
from billing.lab.population import DemoAccount
from billing.lab.recharge_books import Counts
from billing.lab.report import Report
from billing.lab.table import Flow, Screen, Snapshot
from billing.lab.wire import Message
from schemas.reasons import DeadLetterReason

ACCOUNTS = [DemoAccount("a", "USD", "us-standard", 20_000_000), DemoAccount("b", "USD", "us-standard", 5_000_000)]
DONE = SessionKey("a", "call", "c1")
OPEN = SessionKey("b", "call", "c2")


def _expected() -> Expected:
    expected = Expected()
    expected.complete(DONE, 14_000)
    expected.complete(DONE, 14_000)
    expected.hold(OPEN, 0, 28_000, now_ms=1_000_000)
    expected.poison.append((Message(b"a", b"?", ()), DeadLetterReason.NOT_JSON))
    return expected


def _record(credit: int, used: int, held: int) -> AccountRecord:
    return AccountRecord("USD", credit, used, held, 0, None, 0, 1, -1, "open")


def _store() -> Store:
    return Store(
        {"a": _record(20_000_000, 14_000, 0), "b": _record(5_000_000, 0, 28_000)},
        {},
        {OPEN: HoldRecord(28_000, 0, 1_180_000)},
    )


def _ledger() -> Ledger:
    return Ledger(
        balances={"a": 19_986_000, "b": 5_000_000},
        used={"a": 14_000, "b": 0},
        settled={DONE: 14_000},
        dead_letters=[DeadLetterRow("not_json", b"a", b"?")],
        findings=[],
        sums={"USD": 0},
    )


def _failed(store: Store, ledger: Ledger, expected: Expected | None = None) -> list[str]:
    checks = [*book_checks(expected or _expected(), ACCOUNTS, store, ledger)]
    checks.append(hold_check(expected or _expected(), store, 1_010_000))
    return [check.name for check in checks if not check.passed]


def test_equal_books_pass_every_check() -> None:
    assert _failed(_store(), _ledger()) == []


@pytest.mark.parametrize(
    ("ledger", "names"),
    [
        (replace(_ledger(), settled={}), ["every_session_settled_once"]),
        (replace(_ledger(), settled={DONE: 14_001}), ["every_session_settled_once"]),
        (replace(_ledger(), dead_letters=[]), ["dead_letters_are_the_poison"]),
        (
            replace(_ledger(), dead_letters=[DeadLetterRow("not_json", b"a", b"other bytes")]),
            ["dead_letters_are_the_poison"],
        ),
        (
            replace(_ledger(), dead_letters=[DeadLetterRow("invalid_data", b"a", b"?")]),
            ["dead_letters_are_the_poison"],
        ),
        (
            replace(_ledger(), findings=[("differing_completion", DONE)]),
            ["findings_are_the_differing_completions"],
        ),
        (replace(_ledger(), sums={"USD": -1}), ["books_sum_to_zero"]),
        (replace(_ledger(), sums={}), ["books_sum_to_zero"]),
        (
            replace(_ledger(), balances={"a": 19_986_001, "b": 5_000_000}),
            ["redis_equals_ledger", "charges_as_expected"],
        ),
    ],
)
def test_a_wrong_ledger_is_named(ledger: Ledger, names: list[str]) -> None:
    assert _failed(_store(), ledger) == names


def test_both_books_wrong_in_the_same_way_is_named() -> None:
    store = replace(_store(), accounts={**_store().accounts, "a": _record(20_000_000, 15_000, 0)})
    ledger = replace(_ledger(), balances={"a": 19_985_000, "b": 5_000_000}, used={"a": 15_000, "b": 0})
    assert _failed(store, ledger) == ["charges_as_expected"]


def test_r1_an_unknown_or_missing_balance_equals_nothing() -> None:
    without = {"b": _store().accounts["b"]}
    names = ["redis_equals_ledger", "charges_as_expected"]
    assert _failed(replace(_store(), accounts=without), _ledger()) == names
    assert _failed(replace(_store(), accounts=without, unknown={"a": "deriving"}), _ledger()) == names


def test_holds_are_checked_by_amount_and_lease() -> None:
    name = ["open_holds_are_unfinished_sessions"]
    nothing_held = {**_store().accounts, "b": _record(5_000_000, 0, 0)}
    assert _failed(replace(_store(), holds={}), _ledger()) == name
    assert _failed(replace(_store(), accounts=nothing_held), _ledger()) == name
    assert _failed(replace(_store(), holds={OPEN: HoldRecord(28_001, 0, 1_180_000)}), _ledger()) == name
    assert _failed(replace(_store(), holds={**_store().holds, DONE: HoldRecord(0, 0, 0)}), _ledger()) == name
    expired = replace(_store(), holds={}, accounts=nothing_held)
    assert hold_check(_expected(), expired, 1_180_000).passed  # its lease has run out
    assert not hold_check(_expected(), expired, 1_179_999).passed


def test_positions_must_reach_every_partition_s_end() -> None:
    assert position_check("p", {0: 5, 1: 0}, {0: 6}).passed
    assert not position_check("p", {0: 5, 1: 3}, {0: 9, 1: 2}).passed
    assert not position_check("p", {0: 5}, {}).passed


def test_throughput_is_measured_from_positions() -> None:
    meter = Meter()
    for second, total in enumerate((0, 1000, 1000, 4000, 5000)):
        meter.add(float(second), total)
    assert meter.throughput(0, 4) == Throughput(mean=1250, peak=3000)
    assert meter.rate(4.0, over_seconds=1) == 1000
    meter.add(5.0, 0)  # the store was away
    assert meter.total == 5000


def test_the_report_names_what_failed(tmp_path: Path) -> None:
    report = Report(seed=1, checks=[Check("one", True, "fine"), Check("two_three", False, "3 missing")])
    report.throughput["inflight"] = Throughput(4500, 5000)
    report.events["published"] = 12
    report.write(tmp_path / "sub" / "report.json")
    document = json.loads((tmp_path / "sub" / "report.json").read_text())
    assert document["ok"] is False
    assert document["checks"] == {"one": True, "two_three": False}
    assert document["throughput"] == {"inflight": {"mean_per_second": 4500, "peak_per_second": 5000}}
    assert document.keys() >= {"ok", "checks", "events", "accounts", "throughput", "seconds", "recharges", "restarted"}
    assert report.text().endswith("FAILED: two_three")
    assert "FAIL  two three: 3 missing" in report.text()


def test_a_report_without_checks_is_not_ok() -> None:
    assert not Report(seed=1).ok


def _snapshot() -> Snapshot:
    return Snapshot(
        "publishing, 3 of 30 s",
        Flow(12_000, 4_000, None),
        Flow(11_990, 3_990, 10),
        Flow(11_000, 3_900, 1_000),
        Moment(0.0, known=150, why_unknown=Counter(empty=50), charged=7, counts=Counts(declined=2, open=1)),
        [("a", AccountRecord("JPY", 5_000_000, 6_500_000, 0, 0, None, 0, 1, 1, "open")), ("b", None)],
    )


def test_without_a_terminal_there_are_plain_lines() -> None:
    output = StringIO()
    with Screen(Console(file=output, force_terminal=False, width=80)) as screen:
        screen.show(_snapshot())
        screen.show(_snapshot())  # too soon for a second line
        screen.say("done")
    first, last = output.getvalue().splitlines()
    assert "publishing, 3 of 30 s: published 12,000 (4,000/s) | Redis 11,990 (3,990/s, lag 10)" in first
    assert "150 balances known, 50 UNKNOWN | charged 7, declined 2, open 1" in first
    assert last.endswith("done")
    assert "\x1b" not in output.getvalue()


def test_on_a_terminal_there_is_a_table() -> None:
    output = StringIO()
    with Screen(Console(file=output, force_terminal=True, width=100)) as screen:
        screen.show(_snapshot())
    text = output.getvalue()
    assert "applied in Redis" in text
    assert "-1" in text  # 5 yen of credit, 6.5 used: the rest of a yen is not shown
    assert "unknown" in text
    assert "50 empty" in text
