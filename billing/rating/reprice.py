"""Settled usage priced again with another tariff version. Pure. Amounts in micro-units."""

from __future__ import annotations

from typing import cast

from billing.money import MAX_MICROS
from billing.rating.price import call_price, unit_price
from billing.rating.tariff import Tariff
from schemas.catalogue import RateDirection, TariffKind


def price_again(tariff: Tariff, kind: str, direction: str, destination: str, quantity: int) -> int | None:
    """What a session costs by `tariff`, from what the ledger keeps of it; None where it has no price (a missing prefix
    is never free) or one that is out of range."""
    if kind == "item":
        rate = tariff.item(destination)
    else:
        rate = tariff.match(cast(TariffKind, kind), cast(RateDirection, direction), destination)
    if rate is None:
        return None
    price_micros = call_price(rate, quantity) if kind == "call" else unit_price(rate, quantity)
    return price_micros if price_micros <= MAX_MICROS else None


def given_back(net_micros: int, refunded_micros: int, price_micros: int) -> int:
    """What re-rating a session gives back (below 0: charges in addition).

    `net_micros` is what the session costs now, its corrections included; `refunded_micros` of these were refunds. A
    refund stays: it comes off the new price too, and a session that was refunded in full stays at nothing. So the
    session's cost never falls below 0.
    """
    if refunded_micros and net_micros == 0:
        return 0
    return net_micros - max(0, price_micros - refunded_micros)
