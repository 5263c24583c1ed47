"""One version of a plan's tariff, compiled for look-ups."""

from __future__ import annotations

from collections.abc import Iterable

from billing.money import MAX_MICROS
from billing.rating.price import call_price
from schemas.catalogue import Rate, RateDirection, TariffKind, TariffVersion
from schemas.common import MAX_COUNT
from schemas.usage import MAX_RESERVE_SECONDS

_MEMO_LIMIT = 65_536


class PrefixTable:
    """Longest-prefix match of a destination (`to`, as events carry it: "+4915…" or "short:12345").

    The answer for a number depends only on as many characters as the longest prefix has; memoised by these, so distinct
    numbers of one destination share an entry. The memo is emptied when full: bounded whatever is dialled. Short codes
    are few, and have their own lengths: with theirs, hardly two numbers would share an entry.
    """

    __slots__ = ("_number_lengths", "_rates", "_short_lengths", "longest", "memo")

    def __init__(self, rates: dict[str, Rate]) -> None:
        self._rates = rates
        self._number_lengths = _lengths(prefix for prefix in rates if prefix[0] == "+")
        self._short_lengths = _lengths(prefix for prefix in rates if prefix[0] != "+")
        self.longest = self._number_lengths[0] if self._number_lengths else 1
        self.memo: dict[str, Rate | None] = {}

    def search(self, destination: str) -> Rate | None:
        """The rate of the longest prefix of `destination`; remembered for numbers."""
        if destination[0] != "+":
            return self._longest(destination, self._short_lengths)
        head = destination[: self.longest]
        if len(self.memo) >= _MEMO_LIMIT:
            self.memo.clear()
        found = self.memo[head] = self._longest(head, self._number_lengths)
        return found

    def _longest(self, text: str, lengths: list[int]) -> Rate | None:
        return next((rate for length in lengths if (rate := self._rates.get(text[:length])) is not None), None)


def _lengths(prefixes: Iterable[str]) -> list[int]:
    return sorted({len(prefix) for prefix in prefixes}, reverse=True)


class Tariff:
    """A tariff version with its look-up tables. `effective_ms` 0 is the beginning of time. `calls_in_range`: no
    call can cost 2^53 micro-units or more (R10), whatever an event says: who needs no price need not work one out."""

    __slots__ = ("_items", "_tables", "calls_in_range", "content", "currency", "effective_ms", "plan", "version")

    def __init__(self, content: TariffVersion) -> None:
        self.content = content
        self.plan = content.plan
        self.version = content.version
        self.currency = content.currency
        self.effective_ms = content.effective_ms
        self.calls_in_range = all(_dearest(rate) <= MAX_MICROS for rate in content.rates if rate.kind == "call")
        self._items: dict[str, Rate] = {rate.match: rate for rate in content.rates if rate.kind == "item"}
        by_use: dict[tuple[TariffKind, RateDirection], dict[str, Rate]] = {}
        for rate in content.rates:
            if rate.kind != "item":
                by_use.setdefault((rate.kind, rate.direction), {})[_as_dialled(rate.match)] = rate
        self._tables = {use: PrefixTable(rates) for use, rates in by_use.items()}

    def match(self, kind: TariffKind, direction: RateDirection, destination: str) -> Rate | None:
        """The rate of the longest prefix of `destination` (an event's `to`) for calls and messages."""
        table = self._tables.get((kind, direction))
        if table is None:
            return None
        try:
            return table.memo[destination[: table.longest]]  # which begins with "+"
        except KeyError:
            return table.search(destination)

    def item(self, sku: str) -> Rate | None:
        """The rate of exactly this sku."""
        return self._items.get(sku)


def _dearest(rate: Rate) -> int:
    """The most that a call can cost or hold by this rate, in micro-units: prices grow with the seconds."""
    return call_price(rate, MAX_COUNT + MAX_RESERVE_SECONDS)


def _as_dialled(match: str) -> str:
    """A tariff's `match` as `to` begins with it: a tariff writes no plus, an event does."""
    return match if match.startswith("short:") else f"+{match}"
