"""What the demo shows while it runs: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from billing.balance.records import AccountRecord
from billing.lab.observe import Moment
from billing.money import format_micros

PLAIN_EVERY_SECONDS = 2.0


class Flow(NamedTuple):
    """One stage: records so far, a second, and how many wait before it (None for the producer)."""

    total: int
    rate: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the run."""

    title: str
    published: Flow
    applied: Flow
    settled: Flow
    moment: Moment = field(default_factory=lambda: Moment(0.0))
    accounts: Sequence[tuple[str, AccountRecord | None]] = field(default_factory=tuple)

    def line(self) -> str:
        """All of it but the balances of single accounts."""
        moment = self.moment
        balances = f"{moment.known} balances known" + (f", {moment.unknown} UNKNOWN" if moment.unknown else "")
        return (
            f"{self.title}: published {self.published.total:,} ({self.published.rate:,}/s)"
            f" | Redis {self.applied.total:,} ({self.applied.rate:,}/s, lag {self.applied.lag:,})"
            f" | PostgreSQL {self.settled.total:,} ({self.settled.rate:,}/s, lag {self.settled.lag:,})"
            f" | {balances} | charged {moment.charged}, declined {moment.counts.declined}, open {moment.counts.open},"
            f" refusals {moment.counts.refusals:,}, suspended {moment.counts.suspended}"
        )


class Screen:
    """Lines about what is being done, and between them one snapshot after the other."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._begin = time.monotonic()
        self._plain_due = 0.0

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    def say(self, text: str) -> None:
        """A line that stays, with the seconds since the beginning."""
        self._console.print(f"{time.monotonic() - self._begin:6.1f} s  {text}", markup=False, soft_wrap=True)

    def print(self, text: str) -> None:
        """Text as it is, for the report."""
        self._console.print(text, markup=False, soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """The newest moment; without a terminal one line every two seconds."""
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
            self._live.update(_render(snapshot), refresh=True)
        elif time.monotonic() >= self._plain_due:
            self._plain_due = time.monotonic() + PLAIN_EVERY_SECONDS
            self.say(snapshot.line())

    def settle(self) -> None:
        """The live table stays as it is; what follows is printed below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _render(snapshot: Snapshot) -> Group:
    flows = Table("", "records", "per second", "lag", title=snapshot.title, title_justify="left")
    for column in flows.columns[1:]:
        column.justify = "right"
    for name, flow in (
        ("published to Kafka", snapshot.published),
        ("applied in Redis", snapshot.applied),
        ("settled in PostgreSQL", snapshot.settled),
    ):
        flows.add_row(name, f"{flow.total:,}", f"{flow.rate:,}", "" if flow.lag is None else f"{flow.lag:,}")
    return Group(flows, _money_table(snapshot.moment), _balances(snapshot))


def _money_table(moment: Moment) -> Table:
    """Charges, as the gateway and the ledger have them, and how many balances are known."""
    money = Table("balances known", "unknown", "charged", "declined", "open intents", "refusals", "suspended")
    unknown = ", ".join(f"{count} {reason}" for reason, count in moment.why_unknown.most_common(2)) or "0"
    counts = moment.counts
    cells = (moment.charged, counts.declined, counts.open, counts.refusals, counts.suspended)
    money.add_row(
        str(moment.known), Text(unknown, style="red" if moment.unknown else ""), *(f"{count:,}" for count in cells)
    )
    for column in money.columns:
        column.justify = "right"
    return money


def _balances(snapshot: Snapshot) -> Table:
    balances = Table("account", "", "credit", "used", "on hold", "available", "recharged below")
    for column in balances.columns[2:]:
        column.justify = "right"
    for account, record in snapshot.accounts:
        if record is None:
            balances.add_row(account, "", "", "", "", "unknown", "")
            continue
        available = record.credit - record.used - record.held
        amounts = [
            Text(_money(micros, record.currency), style="red" if micros < 0 else "")
            for micros in (record.credit, record.used, record.held, available)
        ]
        below = "" if record.recharge_below is None else _money(record.recharge_below, record.currency)
        balances.add_row(account, record.currency, *amounts, below)
    return balances


def _money(micros: int, currency: str) -> str:
    """With the currency's decimals and nothing beyond them, cut off: a glance, not a statement."""
    decimals = len(format_micros(0, currency).partition(".")[2])
    sign, size = ("-" if micros < 0 else ""), abs(micros)
    text = f"{sign}{size // 1_000_000:,}"
    return f"{text}.{size % 1_000_000:06d}"[: len(text) + 1 + decimals] if decimals else text
