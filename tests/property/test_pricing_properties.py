"""Prices: monotone in duration, exact against fractions; the longest prefix against a plain search."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.rating.price import billed_seconds, call_price
from billing.rating.tariff import Tariff
from schemas.catalogue import Rate, TariffVersion
from schemas.common import MAX_COUNT, MAX_MICROS

# The machine is shared with real servers: how long an example takes says nothing here.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

seconds = st.integers(0, MAX_COUNT) | st.integers(0, 300)
rates = st.builds(
    Rate,
    kind=st.just("call"),
    direction=st.just("outbound"),
    match=st.text("0123", min_size=1, max_size=4),
    rate_micros=st.integers(0, MAX_MICROS) | st.integers(0, 1000),
    first_increment_seconds=st.integers(1, 86_400) | st.integers(1, 90),
    next_increment_seconds=st.integers(1, 86_400) | st.integers(1, 90),
    connect_fee_micros=st.integers(0, 100_000),
    minimum_charge_micros=st.integers(0, 100_000),
    description=st.just(""),
)


@unhurried
@given(rates, seconds, seconds)
def test_a_longer_call_never_costs_less(rate: Rate, one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    assert call_price(rate, shorter) <= call_price(rate, longer)


@unhurried
@given(rates, seconds)
def test_prices_are_exact_and_rounded_once(rate: Rate, duration: int) -> None:
    if duration == 0:
        assert call_price(rate, duration) == 0
        return
    first, following = rate.first_increment_seconds, rate.next_increment_seconds
    billed = first + math.ceil(max(Fraction(duration - first, following), Fraction(0))) * following
    exact = rate.connect_fee_micros + Fraction(rate.rate_micros * billed, 60)
    rounded = math.floor(exact + Fraction(1, 2))
    assert call_price(rate, duration) == max(rounded, rate.minimum_charge_micros)


@unhurried
@given(seconds, st.integers(1, 100), st.integers(1, 100))
def test_billed_seconds_cover_the_call_by_less_than_an_increment(duration: int, first: int, following: int) -> None:
    billed = billed_seconds(duration, first, following)
    assert billed >= duration
    assert duration == 0 or billed - duration < max(first, following)
    assert billed == 0 or (billed - first) % following == 0


@unhurried
@given(st.lists(rates, max_size=20), st.lists(st.text("0123", min_size=1, max_size=7), max_size=20))
def test_the_longest_prefix_is_found_whatever_was_asked_before(lines: list[Rate], dialled: list[str]) -> None:
    by_match = {rate.match: rate for rate in lines}
    tariff = Tariff(
        TariffVersion(timeline="t", plan="p", version=1, currency="USD", effective_ms=0, rates=tuple(by_match.values()))
    )
    for digits in dialled:
        fitting = [match for match in by_match if digits.startswith(match)]
        expected = by_match[max(fitting, key=len)] if fitting else None
        assert tariff.match("call", "outbound", f"+{digits}") is expected
