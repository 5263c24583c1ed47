"""From the charges of a batch to the rows of its settlement. Pure, and written for speed: it runs for every session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from msgspec.structs import astuple

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


@dataclass(frozen=True, slots=True)
class CurrencySum:
    """What a batch settled in one currency."""

    currency: str
    sessions: int
    amount_micros: int


@dataclass(frozen=True, slots=True)
class Settling:
    """Rows of one settlement; those of `usage` are made as they are asked for, once. `lines` is empty when nothing
    costs anything; `uncharged` are the accounts, with their currency, that have sessions but no line: nothing else
    would notice that the ledger does not have them."""

    usage: Iterator[Row]
    lines: list[Row]
    sums: list[CurrencySum]
    uncharged: list[tuple[str, str]]

    @property
    def fits(self) -> bool:
        """Whether every total is a 64-bit integer."""
        return all(total.amount_micros <= MAX_TOTAL_MICROS for total in self.sums)


def settling(charges: Iterable[Charge], partition: int, entry_id: int) -> Settling:
    """The rows of `charges`, each of another session, as settlement `entry_id` of `partition`."""
    usage: list[Iterator[Row]] = []
    lines: list[Row] = []
    sums: list[CurrencySum] = []
    uncharged: list[tuple[str, str]] = []
    for currency, of_currency in _by_currency(charges).items():
        usage.append((*astuple(each), partition, entry_id if each.amount_micros else None) for each in of_currency)
        totals = _totals(of_currency)
        free = {charge.account for charge in of_currency if not charge.amount_micros}
        amount_micros = sum([amount_micros for amount_micros, _ in totals.values()])
        sums.append(CurrencySum(currency, len(of_currency), amount_micros))
        lines += [
            (entry_id, "customer", account, None, currency, -amount_micros, last_offset)
            for account, (amount_micros, last_offset) in totals.items()
        ]
        if amount_micros:
            lines.append((entry_id, "revenue", None, partition, currency, amount_micros, None))
        uncharged += [(account, currency) for account in free - totals.keys()]
    return Settling(chain.from_iterable(usage), lines, sums, uncharged)


def _by_currency(charges: Iterable[Charge]) -> dict[str, list[Charge]]:
    found: dict[str, list[Charge]] = {}
    for charge in charges:
        found.setdefault(charge.currency, []).append(charge)
    return found


def _totals(charges: list[Charge]) -> dict[str, list[int]]:
    """Per charged account: the sum, and the last offset that charged."""
    totals: dict[str, list[int]] = {}
    for charge in charges:
        amount_micros = charge.amount_micros
        if not amount_micros:
            continue
        total = totals.get(charge.account)
        if total is None:
            totals[charge.account] = [amount_micros, charge.offset]
        else:
            total[0] += amount_micros
            total[1] = max(total[1], charge.offset)
    return totals
