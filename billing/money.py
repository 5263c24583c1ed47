"""Money: integers in micro-units (10^-6) of an ISO 4217 currency, never floats (R10).

This module owns parsing, formatting, the bounds and the one rounding rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from billing.currencies import MINOR_UNITS
from schemas.common import MAX_MICROS as _MAX_MICROS

MAX_MICROS = _MAX_MICROS
"""Largest amount, either sign: 2^53 - 1, because numbers in Redis functions are doubles."""

MICROS_PER_UNIT = 1_000_000
_DECIMALS = 6
LARGEST = "9007199254.740991"
"""MAX_MICROS for people."""

_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
_MAX_TEXT = 64  # longer than any amount; keeps huge texts from being parsed at all


class AmountProblem(StrEnum):
    """Why a text is not an amount, in order of precedence."""

    NOT_A_DECIMAL = "not a decimal number such as 20.00 or -5"
    TOO_PRECISE = "more than 6 decimals"
    OUT_OF_RANGE = f"beyond {LARGEST}, the largest amount"


@dataclass(frozen=True, slots=True)
class AmountRefused:
    """`text` (shortened) is not an amount, because of `problem`."""

    text: str
    problem: AmountProblem

    def __str__(self) -> str:
        return f"{self.text!r}: {self.problem}"


def parse_micros(text: str) -> int | AmountRefused:
    """The micro-units of a decimal: "20.00" is 20_000_000, "-5" is -5_000_000.

    ASCII digits with an optional minus and at most 6 decimals; no exponent, no plus, no spaces, no grouping,
    no NaN or Infinity. Nothing is rounded: what is more precise than a micro-unit is refused.
    """
    shown = text[:_MAX_TEXT]
    parts = _DECIMAL.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if parts is None:
        return AmountRefused(shown, AmountProblem.NOT_A_DECIMAL)
    sign, whole, decimals = parts.group(1), parts.group(2), parts.group(3) or ""
    if len(decimals) > _DECIMALS:
        return AmountRefused(shown, AmountProblem.TOO_PRECISE)
    micros = int(whole) * MICROS_PER_UNIT + int(decimals.ljust(_DECIMALS, "0"))
    if micros > MAX_MICROS:
        return AmountRefused(shown, AmountProblem.OUT_OF_RANGE)
    return -micros if sign else micros


def format_micros(amount_micros: int, currency: str | None = None) -> str:
    """The exact decimal of an amount: at least the currency's decimals (2 without one), more where needed.

    >>> format_micros(20_000_000), format_micros(-1_234_500), format_micros(12_300, "JPY")
    ('20.00', '-1.2345', '0.0123')
    """
    at_least = 2 if currency is None else MINOR_UNITS[currency]
    whole, rest = divmod(abs(amount_micros), MICROS_PER_UNIT)
    decimals = f"{rest:06d}".rstrip("0").ljust(at_least, "0")
    sign = "-" if amount_micros < 0 else ""
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def div_half_up(numerator: int, denominator: int) -> int:
    """The one rounding rule: to the nearest integer, halves away from zero.

    7/2 is 4 and -7/2 is -4 (as in commerce: a refund rounds like its charge); 5/3 is 2, -5/3 is -2.
    `denominator` must be positive.
    """
    if numerator < 0:
        return -div_half_up(-numerator, denominator)
    return (2 * numerator + denominator) // (2 * denominator)


def is_currency(code: str) -> bool:
    """Whether `code` is an ISO 4217 currency that an account can be kept in."""
    return code in MINOR_UNITS


def minor_unit_decimals(currency: str) -> int:
    """Decimals of the currency's minor unit: USD 2, JPY 0, KWD 3. KeyError for a code that is none."""
    return MINOR_UNITS[currency]


def minor_unit_micros(currency: str) -> int:
    """Micro-units in one minor unit: 10_000 for a US cent, 1_000_000 for a yen."""
    micros: int = 10 ** (_DECIMALS - MINOR_UNITS[currency])
    return micros
