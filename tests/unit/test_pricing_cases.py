"""Worked pricing cases, each computed by hand: amounts in micro-units."""

from __future__ import annotations

import pytest

from billing.rating.price import billed_seconds, call_price, unit_price
from schemas.catalogue import Rate


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


@pytest.mark.parametrize(
    ("duration", "first", "following", "billed"),
    [
        (0, 60, 6, 0),
        (1, 60, 6, 60),
        (60, 60, 6, 60),
        (61, 60, 6, 66),
        (66, 60, 6, 66),
        (67, 60, 6, 72),
        (120, 60, 60, 120),
        (121, 60, 60, 180),
        (37, 1, 1, 37),
        (30, 30, 6, 30),
        (31, 30, 6, 36),
        (7, 6, 6, 12),
        (1, 1, 60, 1),
        (2, 1, 60, 61),
        (2**31 - 1, 60, 60, 2_147_483_700),
    ],
)
def test_billed_seconds_are_the_first_increment_then_whole_next_ones(
    duration: int, first: int, following: int, billed: int
) -> None:
    assert billed_seconds(duration, first, following) == billed


# rate per minute, first, next, connect fee, minimum charge, duration -> price
CALLS = [
    # whole minutes
    (12_000, 60, 60, 0, 0, 0, 0),
    (12_000, 60, 60, 0, 0, 1, 12_000),
    (12_000, 60, 60, 0, 0, 60, 12_000),
    (12_000, 60, 60, 0, 0, 61, 24_000),
    (12_000, 60, 60, 0, 0, 3600, 720_000),
    # 60/6
    (12_000, 60, 6, 0, 0, 59, 12_000),
    (12_000, 60, 6, 0, 0, 61, 13_200),
    (12_000, 60, 6, 0, 0, 66, 13_200),
    (12_000, 60, 6, 0, 0, 67, 14_400),
    # 30/6
    (10_000, 30, 6, 0, 0, 1, 5_000),
    (10_000, 30, 6, 0, 0, 31, 6_000),
    # 1/1, exact and rounded: 10_000 * s / 60 = 166.67 s
    (10_000, 1, 1, 0, 0, 1, 167),
    (10_000, 1, 1, 0, 0, 2, 333),
    (10_000, 1, 1, 0, 0, 3, 500),
    (10_000, 1, 1, 0, 0, 4, 667),
    # halves go up: 1 * 30 / 60 = 0.5
    (1, 1, 1, 0, 0, 29, 0),
    (1, 1, 1, 0, 0, 30, 1),
    (1, 1, 1, 0, 0, 31, 1),
    (1, 1, 1, 0, 0, 89, 1),
    (1, 1, 1, 0, 0, 90, 2),
    (3, 1, 1, 0, 0, 10, 1),
    (3, 1, 1, 0, 0, 9, 0),
    # rounded once, of the whole and not per increment: 7 increments of 6 s at 5 per minute are 3.5
    (5, 6, 6, 0, 0, 42, 4),
    # connect fee
    (12_000, 60, 60, 10_000, 0, 0, 0),
    (12_000, 60, 60, 10_000, 0, 1, 22_000),
    (12_000, 60, 6, 10_000, 0, 90, 28_000),
    (0, 60, 60, 10_000, 0, 600, 10_000),
    (1, 1, 1, 10_000, 0, 30, 10_001),
    # minimum charge
    (12_000, 60, 60, 0, 50_000, 0, 0),
    (12_000, 60, 60, 0, 50_000, 1, 50_000),
    (12_000, 60, 60, 0, 50_000, 240, 50_000),
    (12_000, 60, 60, 0, 48_000, 240, 48_000),
    (12_000, 60, 60, 0, 50_000, 300, 60_000),
    # the fee counts towards the minimum
    (12_000, 60, 60, 10_000, 22_000, 10, 22_000),
    (12_000, 60, 60, 10_000, 25_000, 10, 25_000),
    (12_000, 60, 60, 10_000, 25_000, 61, 34_000),
    # a rate of zero is explicit and free
    (0, 60, 60, 0, 0, 3600, 0),
    (0, 60, 60, 0, 1, 3600, 1),
    # large numbers stay exact
    (9_007_199_254_740_991, 60, 60, 0, 0, 60, 9_007_199_254_740_991),
    (9_007_199_254_740_991, 1, 1, 0, 0, 1, 150_119_987_579_017),
    (999_999_999, 1, 1, 0, 0, 2**31 - 1, 35_791_394_080_875_273),
]


@pytest.mark.parametrize("case", CALLS)
def test_calls_cost(case: tuple[int, ...]) -> None:
    rate, first, following, connect, minimum, duration, price = case
    assert call_price(_rate(rate, first, following, connect, minimum), duration) == price


@pytest.mark.parametrize(
    ("rate", "quantity", "price"),
    [(7_900, 1, 7_900), (7_900, 3, 23_700), (0, 5, 0), (1_150_000, 2, 2_300_000), (1, 2**31 - 1, 2**31 - 1)],
)
def test_messages_and_items_cost_rate_times_quantity(rate: int, quantity: int, price: int) -> None:
    assert unit_price(_rate(rate, 0, 0), quantity) == price
