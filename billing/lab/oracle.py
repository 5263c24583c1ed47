"""What a session should cost, worked out a second time.

The demo and the system tests compare both books with this. It shares no code with `billing.rating` and is written
the plain way (fractions, every prefix tried), so that a mistake there does not vouch for itself.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from billing.lab.population import decimal_micros


class Price(NamedTuple):
    """One line of a tariff; money in micro-units, increments in seconds."""

    rate: int
    first: int
    following: int
    connect_fee: int
    minimum: int


class Oracle:
    """Prices of the given plans (name to tariff file)."""

    def __init__(self, files: Iterable[tuple[str, Path]]) -> None:
        self._prices: dict[tuple[str, str, str, str], Price] = {}
        for plan, path in files:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    self._prices[plan, row["kind"], row["direction"], row["match"]] = _price(row)
        self.cost = lru_cache(maxsize=100_000)(self._cost)

    def matches(self, plan: str, kind: str, direction: str) -> list[str]:
        """The destinations and skus that the plan has a price for."""
        return [key[3] for key in self._prices if key[:3] == (plan, kind, direction)]

    def _cost(self, plan: str, kind: str, direction: str, to: str, quantity: int) -> int | None:
        """Micro-units for `quantity` seconds, segments or units; None where the plan has no price for `to`
        (an E.164 number with its plus, `short:…`, or a sku)."""
        price = self._find(plan, kind, direction, to)
        if price is None:
            return None
        if kind != "call":
            return price.rate * quantity
        if quantity == 0:
            return 0
        billed = price.first
        while billed < quantity:
            billed += price.following
        exact = price.connect_fee + Fraction(price.rate * billed, 60)
        return max(int(exact + Fraction(1, 2)), price.minimum)  # never negative, so int() rounds down

    def _find(self, plan: str, kind: str, direction: str, to: str) -> Price | None:
        if not to.startswith("+"):
            return self._prices.get((plan, kind, direction, to))
        digits = to[1:]
        for length in range(len(digits), 0, -1):
            price = self._prices.get((plan, kind, direction, digits[:length]))
            if price is not None:
                return price
        return None


def _price(row: dict[str, str]) -> Price:
    return Price(
        rate=decimal_micros(row["rate"]),
        first=int(row["first_increment_seconds"] or 60),
        following=int(row["next_increment_seconds"] or 60),
        connect_fee=decimal_micros(row["connect_fee"]),
        minimum=decimal_micros(row["minimum_charge"]),
    )
