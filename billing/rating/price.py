"""What usage costs: pure, exact integer functions of a rate and a quantity. Results are in micro-units.

Results are not bounded here; a price that is not below 2^53 is refused where it becomes money (R10).
"""

from __future__ import annotations

from billing.money import div_half_up
from schemas.catalogue import Rate


def billed_seconds(duration_seconds: int, first_increment_seconds: int, next_increment_seconds: int) -> int:
    """Seconds that count: the first increment, then whole next increments; a duration of 0 bills nothing."""
    if duration_seconds == 0:
        return 0
    beyond = duration_seconds - first_increment_seconds
    if beyond <= 0:
        return first_increment_seconds
    increments = -(-beyond // next_increment_seconds)
    return first_increment_seconds + increments * next_increment_seconds


def call_price(rate: Rate, duration_seconds: int) -> int:
    """connect fee + rate per minute * billed seconds / 60, rounded half up once; at least the minimum charge.

    A duration of 0 costs nothing, whatever the fees.
    """
    if duration_seconds == 0:
        return 0
    seconds = rate.first_increment_seconds
    if duration_seconds > seconds:
        seconds = billed_seconds(duration_seconds, seconds, rate.next_increment_seconds)
    price_micros = rate.connect_fee_micros + div_half_up(rate.rate_micros * seconds, 60)
    at_least_micros = rate.minimum_charge_micros
    return price_micros if price_micros >= at_least_micros else at_least_micros


def unit_price(rate: Rate, quantity: int) -> int:
    """rate * quantity: segments of a message, units of an item."""
    return rate.rate_micros * quantity
