"""Automatic recharge's terms: complete or absent, in whole minor units. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billing.ledger.terms import Invalid
from billing.money import format_micros, minor_unit_micros

_TOGETHER = ("recharge_below_micros", "recharge_by_micros", "payment_method")


def recharge_problem(account: str, currency: str, terms: Mapping[str, Any]) -> Invalid | None:
    """Why `terms` are none that an account of `currency` can be recharged by, or None.

    A threshold, an increment and a payment method come together or not at all; the customer may be made later. What
    is charged must be whole minor units: cards know no fractions of a cent, and a yen has none.
    """
    given = [name for name in _TOGETHER if terms[name] is not None]
    if given and len(given) < len(_TOGETHER):
        missing = next(name for name in _TOGETHER if terms[name] is None)
        names = "recharge_below, recharge_by and payment_method come together"
        return Invalid(account, missing, f"is missing: {names}")
    by_micros = terms["recharge_by_micros"]
    if by_micros is not None and by_micros % minor_unit_micros(currency):
        smallest = format_micros(minor_unit_micros(currency), currency)
        return Invalid(account, "recharge_by_micros", f"must be a multiple of {smallest} {currency}")
    return None
