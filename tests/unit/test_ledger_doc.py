"""docs/ledger.md says what the code does: its tables are made from billing/ledger/entries.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from billing.ledger.entries import CHART, COUNTERPART, KINDS, LedgerAccount, counterpart, entry_postings
from schemas.ledger import Origin

DOC = Path(__file__).parents[2] / "docs" / "ledger.md"


def chart() -> Iterator[str]:
    yield "| account | kept per | what stands on it |"
    yield "|---|---|---|"
    per = {LedgerAccount.CUSTOMER: "account", LedgerAccount.REVENUE: "partition"}
    for account, meaning in CHART.items():
        yield f"| `{account}` | {per.get(account, 'currency')} | {meaning} |"


def kinds() -> Iterator[str]:
    yield "| entry | what it is | booked by | debit | credit |"
    yield "|---|---|---|---|---|"
    for kind, (meaning, booked_by, directions, second) in KINDS.items():
        for direction, what in zip(directions, (meaning, second or meaning), strict=False):
            sides = [f"`{LedgerAccount.CUSTOMER}`", f"`{counterpart(kind)}`"]
            debit, credit = sides if direction < 0 else sides[::-1]
            more = "" if len(directions) == 1 else (", up" if direction > 0 else ", down")
            yield f"| `{kind}`{more} | {what} | {booked_by} | {debit} | {credit} |"


def test_the_chart_and_every_kind_of_entry_are_as_documented() -> None:
    text = DOC.read_text(encoding="utf-8")
    for table in (chart(), kinds()):
        expected = "\n".join(table)
        assert expected in text, f"put this into docs/ledger.md:\n{expected}"


def test_every_account_and_every_origin_is_in_the_tables() -> None:
    assert set(CHART) == set(LedgerAccount)
    assert set(KINDS) == {*get_args(Origin), "settlement", "opening"}
    assert set(KINDS) - {"settlement", "opening"} == set(COUNTERPART)


def test_what_the_table_says_of_an_origin_is_what_is_posted() -> None:
    for origin in COUNTERPART:
        for direction in KINDS[origin].directions:
            customer, other = entry_postings("a", 3, "USD", direction * 5, origin)
            assert (customer.ledger_account, other.ledger_account) == (LedgerAccount.CUSTOMER, counterpart(origin))
            assert (customer.amount_micros, other.amount_micros) == (direction * 5, direction * -5)
