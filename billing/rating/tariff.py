"""One version of a plan's tariff, compiled for look-ups."""

from __future__ import annotations

from schemas.catalogue import Rate, RateDirection, TariffKind, TariffVersion

_MEMO_LIMIT = 4096


class PrefixTable:
    """Longest-prefix match of a destination (`to`, as events carry it: "+4915…" or "short:12345").

    The answer depends only on as many characters as the longest prefix has; memoised by these, so distinct
    numbers of one destination share an entry. The memo is emptied when full: bounded whatever is dialled.
    """

    __slots__ = ("_lengths", "_rates", "longest", "memo")

    def __init__(self, rates: dict[str, Rate]) -> None:
        self._rates = rates
        self._lengths = sorted({len(prefix) for prefix in rates}, reverse=True)
        self.longest = self._lengths[0]
        self.memo: dict[str, Rate | None] = {}

    def search(self, destination: str) -> Rate | None:
        """The rate of the longest prefix of `destination`, remembered."""
        head = destination[: self.longest]
        found = next((r for n in self._lengths if (r := self._rates.get(head[:n])) is not None), None)
        if len(self.memo) >= _MEMO_LIMIT:
            self.memo.clear()
        self.memo[head] = found
        return found


class Tariff:
    """A tariff version with its look-up tables. `effective_ms` 0 is the beginning of time."""

    __slots__ = ("_items", "_tables", "content", "currency", "effective_ms", "plan", "version")

    def __init__(self, content: TariffVersion) -> None:
        self.content = content
        self.plan = content.plan
        self.version = content.version
        self.currency = content.currency
        self.effective_ms = content.effective_ms
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
            return table.memo[destination[: table.longest]]
        except KeyError:
            return table.search(destination)

    def item(self, sku: str) -> Rate | None:
        """The rate of exactly this sku."""
        return self._items.get(sku)


def _as_dialled(match: str) -> str:
    """A tariff's `match` as `to` begins with it: a tariff writes no plus, an event does."""
    return match if match.startswith("short:") else f"+{match}"
