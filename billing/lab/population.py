"""Who lives in the demo: its plans and accounts, committed as the CSV files that the command line reads too."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ACCOUNTS_FILE = HERE / "accounts.csv"

PLANS = {
    "us-standard": "USD",
    "us-business": "USD",
    "eu-standard": "EUR",
    "jp-standard": "JPY",
}
"""Plan to currency; each plan's tariff is `tariffs/<plan>.csv`."""


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """An account of the demo; `credit_micros` is what it is opened with."""

    id: str
    currency: str
    plan: str
    credit_micros: int


def tariff_file(plan: str) -> Path:
    """Where the plan's tariff stands."""
    return HERE / "tariffs" / f"{plan}.csv"


def demo_accounts() -> list[DemoAccount]:
    """All accounts of `accounts.csv`, in the file's order; the first are the busiest."""
    with ACCOUNTS_FILE.open(newline="", encoding="utf-8") as file:
        return [
            DemoAccount(row["id"], row["currency"], row["plan"], decimal_micros(row["credit"]))
            for row in csv.DictReader(file)
        ]


def decimal_micros(text: str) -> int:
    """A decimal with at most six places, in micro-units; "" is 0. The lab's own, so that it can disagree with
    `billing.money` when that is wrong."""
    whole, _, fraction = text.partition(".")
    if len(fraction) > 6:
        raise ValueError(f"{text!r} has more than six decimal places")
    return int(whole or "0") * 1_000_000 + int(fraction.ljust(6, "0"))
