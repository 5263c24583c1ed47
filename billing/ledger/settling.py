"""From the charges of a batch to the rows of its settlement. Pure, and written for speed: it runs for every session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msgspec.structs import astuple

from billing.ledger.completions import text
from billing.usage.ops import Charge

MAX_TOTAL_MICROS = 2**63 - 1

_NAMES = {"offset": "log_offset", "account": "account_id", "session": "session_id"}
USAGE_COLUMNS = (*(_NAMES.get(name, name) for name in Charge.__struct_fields__), "partition", "journal_id")
"""Of `Settling.usage`: a charge as it is, so that a row costs one call."""

LINE_COLUMNS = (
    *("journal_id", "ledger_account", "account_id", "partition", "currency", "amount_micros", "charged_offset"),
)
"""Of `Settling.lines`."""

Row: TypeAlias = tuple[Any, ...]


@dataclass(slots=True)
class CurrencySum:
    """What a batch settled in one currency."""

    currency: str
    sessions: int = 0
    amount_micros: int = 0


@dataclass(slots=True)
class Settling:
    """Rows of one settlement. `lines` is empty when nothing costs anything; `uncharged` are the accounts, with their
    currency, that have sessions but no line: nothing else would notice that the ledger does not have them."""

    usage: list[Row]
    lines: list[Row]
    sums: list[CurrencySum]
    uncharged: list[tuple[str, str]]

    @property
    def fits(self) -> bool:
        """Whether every total is a 64-bit integer."""
        return all(total.amount_micros <= MAX_TOTAL_MICROS for total in self.sums)


@dataclass(slots=True)
class _Rows:
    """Per account and currency: the total, and the last offset that charged."""

    usage: list[Row] = field(default_factory=list)
    totals: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    free: set[tuple[str, str]] = field(default_factory=set)
    sums: dict[str, CurrencySum] = field(default_factory=dict)


def settling(charges: Iterable[Charge], partition: int, entry_id: int) -> Settling:
    """The rows of `charges`, each of another session, as settlement `entry_id` of `partition`."""
    rows = _rows(charges, (partition, entry_id), (partition, None))
    lines: list[Row] = [
        (entry_id, "customer", account, None, currency, -amount_micros, last_offset)
        for (account, currency), (amount_micros, last_offset) in rows.totals.items()
    ]
    lines += [
        (entry_id, "revenue", None, partition, total.currency, total.amount_micros, None)
        for total in rows.sums.values()
        if total.amount_micros
    ]
    return Settling(rows.usage, lines, list(rows.sums.values()), sorted(rows.free - rows.totals.keys()))


def _rows(charges: Iterable[Charge], charged: Row, free: Row) -> _Rows:
    rows = _Rows()
    append, totals, sums = rows.usage.append, rows.totals, rows.sums
    for charge in charges:
        row = astuple(charge)
        if "\x00" in charge.origin or "\x00" in charge.event_id or "\x00" in charge.event_source:
            row = tuple(text(value) if isinstance(value, str) else value for value in row)
        key = charge.account, charge.currency
        total = sums.get(charge.currency)
        if total is None:
            total = sums[charge.currency] = CurrencySum(charge.currency)
        total.sessions += 1
        amount_micros = charge.amount_micros
        if amount_micros:
            append(row + charged)
            total.amount_micros += amount_micros
            before_micros, last_offset = totals.get(key, (0, charge.offset))
            totals[key] = before_micros + amount_micros, max(last_offset, charge.offset)
        else:
            append(row + free)
            rows.free.add(key)
    return rows
