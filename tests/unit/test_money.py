"""Money: parsing, formatting, the bound of 2^53 and the one rounding rule (R10, S13)."""

from __future__ import annotations

import pytest

from billing.currencies import MINOR_UNITS
from billing.money import (
    MAX_MICROS,
    AmountProblem,
    AmountRefused,
    div_half_up,
    format_micros,
    is_currency,
    minor_unit_decimals,
    minor_unit_micros,
    parse_micros,
)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("20.00", 20_000_000),
        ("-5", -5_000_000),
        ("0", 0),
        ("-0", 0),
        ("-0.000000", 0),
        ("0.000001", 1),
        ("-0.000001", -1),
        ("007.5", 7_500_000),
        ("1.100000", 1_100_000),
        ("9007199254.740991", MAX_MICROS),
        ("-9007199254.740991", -MAX_MICROS),
    ],
)
def test_parses_decimals_exactly(text: str, micros: int) -> None:
    assert parse_micros(text) == micros


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", AmountProblem.NOT_A_DECIMAL),
        (" 1", AmountProblem.NOT_A_DECIMAL),
        ("1\n", AmountProblem.NOT_A_DECIMAL),
        ("+1", AmountProblem.NOT_A_DECIMAL),
        ("--1", AmountProblem.NOT_A_DECIMAL),
        (".5", AmountProblem.NOT_A_DECIMAL),
        ("5.", AmountProblem.NOT_A_DECIMAL),
        ("1,5", AmountProblem.NOT_A_DECIMAL),
        ("1_000", AmountProblem.NOT_A_DECIMAL),
        ("1e3", AmountProblem.NOT_A_DECIMAL),
        ("NaN", AmountProblem.NOT_A_DECIMAL),
        ("Infinity", AmountProblem.NOT_A_DECIMAL),
        ("0x10", AmountProblem.NOT_A_DECIMAL),
        ("١٢", AmountProblem.NOT_A_DECIMAL),
        ("1" * 5000, AmountProblem.NOT_A_DECIMAL),
        ("1.0000000", AmountProblem.TOO_PRECISE),
        ("99999999999.0000001", AmountProblem.TOO_PRECISE),
        ("9007199254.740992", AmountProblem.OUT_OF_RANGE),
        ("-9007199254.740992", AmountProblem.OUT_OF_RANGE),
        ("99999999999999999999", AmountProblem.OUT_OF_RANGE),
    ],
)
def test_s13_refuses_what_is_not_an_amount_by_name(text: str, problem: AmountProblem) -> None:
    refused = parse_micros(text)
    assert isinstance(refused, AmountRefused)
    assert refused.problem is problem
    assert "\n" not in str(refused)
    assert len(str(refused)) < 150


@pytest.mark.parametrize(
    ("micros", "currency", "text"),
    [
        (20_000_000, "USD", "20.00"),
        (-5_000_000, None, "-5.00"),
        (1_234_500, "USD", "1.2345"),
        (-1, "USD", "-0.000001"),
        (0, "JPY", "0"),
        (500_000_000, "JPY", "500"),
        (500_500_000, "JPY", "500.5"),
        (1_500_000, "KWD", "1.500"),
        (MAX_MICROS, "EUR", "9007199254.740991"),
    ],
)
def test_formats_exactly_with_the_currencys_decimals(micros: int, currency: str | None, text: str) -> None:
    assert format_micros(micros, currency) == text


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [
        (0, 60, 0),
        (29, 60, 0),
        (30, 60, 1),
        (31, 60, 1),
        (90, 60, 2),
        (89, 60, 1),
        (7, 2, 4),
        (-7, 2, -4),
        (5, 3, 2),
        (-5, 3, -2),
        (4, 3, 1),
        (-4, 3, -1),
        (-30, 60, -1),
        (-29, 60, 0),
        (10**30 + 1, 2, 5 * 10**29 + 1),
    ],
)
def test_r10_one_rounding_rule_halves_away_from_zero(numerator: int, denominator: int, rounded: int) -> None:
    assert div_half_up(numerator, denominator) == rounded


def test_currencies_and_their_minor_units() -> None:
    assert {code: minor_unit_decimals(code) for code in ("USD", "EUR", "GBP", "JPY", "KWD")} == {
        "USD": 2,
        "EUR": 2,
        "GBP": 2,
        "JPY": 0,
        "KWD": 3,
    }
    assert minor_unit_micros("USD") == 10_000
    assert minor_unit_micros("JPY") == 1_000_000
    assert minor_unit_micros("KWD") == 1_000
    assert is_currency("CHF")
    assert not any(is_currency(code) for code in ("", "usd", "XXX", "XAU", "DEM", "US", "USDT"))


def test_the_currency_table_has_each_code_once() -> None:
    assert len(MINOR_UNITS) == 155
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in MINOR_UNITS)
