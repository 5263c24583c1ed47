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

QUIET_ACCOUNTS = 8
"""The last accounts of the file make no usage, and nobody may charge them: every other one is opened below its
threshold already, the rest come below it by an adjustment while the traffic runs (R5, S43)."""


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """An account of the demo; `credit_micros` is what it is opened with. With a card (`payment_method`, one of
    Stripe's test tokens) it is recharged by `recharge_by_micros` below `recharge_below_micros`."""

    id: str
    currency: str
    plan: str
    credit_micros: int
    credit_limit_micros: int = 0
    recharge_below_micros: int | None = None
    recharge_by_micros: int = 0
    payment_method: str = ""
    daily_cap_micros: int | None = None
    quiet: bool = False

    @property
    def has_card(self) -> bool:
        return bool(self.payment_method)

    @property
    def declines(self) -> bool:
        """Its card is refused: when it is saved, or (`chargeCustomerFail`) only when it is charged."""
        return "chargeDeclined" in self.payment_method or self.payment_method == "pm_card_chargeCustomerFail"

    @property
    def capped(self) -> bool:
        """Its owner allows less in a day than one recharge."""
        return self.daily_cap_micros is not None and self.daily_cap_micros < self.recharge_by_micros

    @property
    def chargeable(self) -> bool:
        """It is charged once usage has brought it below its threshold."""
        return self.has_card and not (self.declines or self.capped or self.quiet)


def tariff_file(plan: str) -> Path:
    """Where the plan's tariff stands."""
    return HERE / "tariffs" / f"{plan}.csv"


def demo_accounts() -> list[DemoAccount]:
    """All accounts of `accounts.csv`, in the file's order; the first are the busiest."""
    with ACCOUNTS_FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [_account(row, quiet=number >= len(rows) - QUIET_ACCOUNTS) for number, row in enumerate(rows)]


def _account(row: dict[str, str], *, quiet: bool) -> DemoAccount:
    return DemoAccount(
        id=row["id"],
        currency=row["currency"],
        plan=row["plan"],
        credit_micros=decimal_micros(row["credit"]),
        credit_limit_micros=decimal_micros(row["credit_limit"]),
        recharge_below_micros=decimal_micros(row["recharge_below"]) if row["recharge_below"] else None,
        recharge_by_micros=decimal_micros(row["recharge_by"]),
        payment_method=row["payment_method"],
        daily_cap_micros=decimal_micros(row["daily_cap"]) if row["daily_cap"] else None,
        quiet=quiet,
    )


def decimal_micros(text: str) -> int:
    """A decimal with at most six places, in micro-units; "" is 0. The lab's own, so that it can disagree with
    `billing.money` when that is wrong."""
    whole, _, fraction = text.partition(".")
    if len(fraction) > 6:
        raise ValueError(f"{text!r} has more than six decimal places")
    return int(whole or "0") * 1_000_000 + int(fraction.ljust(6, "0"))
