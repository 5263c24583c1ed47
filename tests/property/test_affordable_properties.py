"""What an amount pays for against the price itself: what is affordable is payable, one more is not."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from billing.rating.affordable import affordable_quantity, affordable_seconds
from billing.rating.price import call_price, unit_price
from schemas.catalogue import Rate
from schemas.common import MAX_COUNT, MAX_MICROS

# The machine is shared with real servers: how long an example takes says nothing here.
unhurried = settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow])

increments = st.integers(1, 90) | st.integers(1, 86_400)
fees = st.just(0) | st.integers(0, 300) | st.integers(0, 100_000) | st.integers(0, MAX_MICROS)
rates = st.builds(
    Rate,
    kind=st.just("call"),
    direction=st.just("outbound"),
    match=st.just("1"),
    rate_micros=st.integers(0, 300) | st.integers(0, 1_000_000) | st.integers(0, MAX_MICROS),
    first_increment_seconds=increments,
    next_increment_seconds=increments,
    connect_fee_micros=fees,
    minimum_charge_micros=fees,
    description=st.just(""),
)
funds = st.integers(-1_000, 1_000) | st.integers(0, 100_000_000) | st.integers(-MAX_MICROS, 2 * MAX_MICROS)


def _rate(per_minute: int, first: int, following: int, connect: int = 0, minimum: int = 0) -> Rate:
    return Rate(
        kind="call",
        direction="outbound",
        match="1",
        rate_micros=per_minute,
        first_increment_seconds=first,
        next_increment_seconds=following,
        connect_fee_micros=connect,
        minimum_charge_micros=minimum,
        description="",
    )


@unhurried
@given(rates, funds)
@example(_rate(1, 1, 1), 0)  # 29 seconds at 1 per minute round to 0
@example(_rate(0, 60, 60), -5)  # free, whatever the funds
@example(_rate(0, 60, 60, connect=1), 0)
@example(_rate(0, 60, 60, minimum=1), 0)
@example(_rate(MAX_MICROS, 60, 60), 2 * MAX_MICROS)  # more than a price can be
@example(_rate(MAX_MICROS, 61, 60), 2 * MAX_MICROS)
def test_affordable_seconds_are_payable_and_one_more_is_not(rate: Rate, funds_micros: int) -> None:
    seconds = affordable_seconds(rate, funds_micros)
    payable_micros = max(0, min(funds_micros, MAX_MICROS))
    assert 0 <= seconds <= MAX_COUNT
    assert call_price(rate, seconds) <= payable_micros
    assert seconds == MAX_COUNT or call_price(rate, seconds + 1) > payable_micros


@unhurried
@given(rates, st.integers(0, MAX_COUNT) | st.integers(0, 4_000))
def test_the_price_of_a_call_affords_that_call(rate: Rate, seconds: int) -> None:
    price_micros = call_price(rate, seconds)
    if price_micros <= MAX_MICROS:
        assert affordable_seconds(rate, price_micros) >= seconds
    if 0 < price_micros <= MAX_MICROS:
        assert affordable_seconds(rate, price_micros - 1) < seconds


@unhurried
@given(rates, funds, funds)
def test_more_funds_never_afford_less(rate: Rate, one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert affordable_seconds(rate, less) <= affordable_seconds(rate, more)


@unhurried
@given(rates, funds)
def test_affordable_quantities_are_payable_and_one_more_is_not(rate: Rate, funds_micros: int) -> None:
    quantity = affordable_quantity(rate, funds_micros)
    payable_micros = max(0, min(funds_micros, MAX_MICROS))
    assert 0 <= quantity <= MAX_COUNT
    assert unit_price(rate, quantity) <= payable_micros
    assert quantity == MAX_COUNT or unit_price(rate, quantity + 1) > payable_micros
