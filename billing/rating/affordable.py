"""How much usage an amount pays for: the exact inverse of `billing.rating.price`. Pure, amounts in micro-units.

What costs nothing is affordable whatever the funds, also with funds below zero. No answer is above MAX_COUNT, the
largest duration or quantity that an event may carry, and none asks for a price above MAX_MICROS (R10).
"""

from __future__ import annotations

from billing.money import MAX_MICROS
from schemas.catalogue import Rate
from schemas.common import MAX_COUNT


def affordable_seconds(rate: Rate, funds_micros: int) -> int:
    """The longest call, in whole seconds, with `call_price(rate, seconds) <= max(funds_micros, 0)`; 0 where not even
    one second is.

    The price rounds half up, so rate * billed / 60 rounds to at most B exactly where rate * billed <= 60 * B + 29.
    """
    funds_micros = _spendable(funds_micros)
    budget_micros = funds_micros - rate.connect_fee_micros
    if budget_micros < 0 or rate.minimum_charge_micros > funds_micros:
        return 0
    if rate.rate_micros == 0:
        return MAX_COUNT
    billable_seconds = (60 * budget_micros + 29) // rate.rate_micros
    beyond = billable_seconds - rate.first_increment_seconds
    if beyond < 0:
        return 0
    increments = beyond // rate.next_increment_seconds
    return min(rate.first_increment_seconds + increments * rate.next_increment_seconds, MAX_COUNT)


def affordable_quantity(rate: Rate, funds_micros: int) -> int:
    """The most segments or units with `unit_price(rate, quantity) <= max(funds_micros, 0)`."""
    if rate.rate_micros == 0:
        return MAX_COUNT
    return min(_spendable(funds_micros) // rate.rate_micros, MAX_COUNT)


def _spendable(funds_micros: int) -> int:
    return max(0, min(funds_micros, MAX_MICROS))
