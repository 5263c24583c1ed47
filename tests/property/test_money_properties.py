"""Money: parse and format are inverse; the rounding rule is within half a unit and symmetric."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.currencies import MINOR_UNITS
from billing.money import MAX_MICROS, AmountRefused, div_half_up, format_micros, parse_micros

# The machine is shared with real servers: how long an example takes says nothing here.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

micros = st.integers(-MAX_MICROS, MAX_MICROS)


@unhurried
@given(micros, st.sampled_from([None, *sorted(MINOR_UNITS)]))
def test_what_is_formatted_parses_back(amount: int, currency: str | None) -> None:
    assert parse_micros(format_micros(amount, currency)) == amount


@unhurried
@given(st.text(max_size=40) | st.from_regex(r"-?[0-9]{1,12}(\.[0-9]{0,8})?", fullmatch=True))
def test_s13_any_text_parses_exactly_or_is_refused(text: str) -> None:
    parsed = parse_micros(text)
    if isinstance(parsed, AmountRefused):
        return
    assert abs(parsed) <= MAX_MICROS
    assert Fraction(text) * 10**6 == parsed


@unhurried
@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_r10_rounding_is_nearest_with_halves_away_from_zero(numerator: int, denominator: int) -> None:
    rounded = div_half_up(numerator, denominator)
    error = Fraction(numerator, denominator) - rounded
    assert abs(error) <= Fraction(1, 2)
    if abs(error) == Fraction(1, 2):
        assert abs(rounded) > abs(Fraction(numerator, denominator))
    assert div_half_up(-numerator, denominator) == -rounded
