"""The members of an answer that say what was seen and what it costs. Pure."""

from __future__ import annotations

from typing import Any

from billing.admission.offer import Offer, Pricing
from billing.admission.request import quantity_of
from billing.balance.balances import BalanceAnswer, Known, Unknown
from billing.money import MAX_MICROS
from billing.rating.affordable import affordable_quantity, affordable_seconds
from billing.rating.price import unit_price
from schemas.admission import AsOf, AuthorizationQuery, BalanceSeen, CallQuery, ItemQuery, MmsQuery, SmsQuery
from schemas.catalogue import Rate


def funds(balance: Known) -> int:
    """What may still be spent, in micro-units: what is available, and the credit limit."""
    return balance.available_micros + balance.credit_limit_micros


def other_currency(pricing: Pricing, balance: Known) -> bool:
    """Whether the plan's prices are in another currency than the balance, so that nothing can be compared."""
    return isinstance(pricing, Offer) and pricing.tariff is not None and pricing.tariff.currency != balance.currency


def balance_seen(balance: Known | Unknown) -> BalanceSeen:
    """The balance; without amounts where it is unknown."""
    if isinstance(balance, Unknown):
        return BalanceSeen(status="unknown", reason=balance.reason, detail=balance.detail or None)
    return BalanceSeen(
        status="known", available_micros=balance.available_micros, credit_limit_micros=balance.credit_limit_micros
    )


def as_of(pricing: Pricing, seen: BalanceAnswer) -> AsOf:
    """The moment that the answer is true of."""
    if not isinstance(seen, Known):
        return AsOf(catalogue_ms=pricing.as_of_ms)
    return AsOf(
        log_time_ms=seen.log_time_ms,
        positions={topic: position.offset for topic, position in seen.positions.items()},
        ledger_seq=seen.ledger_seq,
        catalogue_ms=pricing.as_of_ms,
    )


def price_members(query: AuthorizationQuery, pricing: Pricing, balance: Known | Unknown) -> dict[str, Any]:
    """The members of the answer that the price gives; without one, the balance's currency at most."""
    members: dict[str, Any] = {"currency": balance.currency if isinstance(balance, Known) else None}
    if not isinstance(pricing, Offer) or pricing.tariff is None:
        return members
    tariff, rate = pricing.tariff, pricing.rate
    members |= {"currency": tariff.currency, "plan": tariff.plan, "tariff_version": tariff.version}
    if rate is None:
        return members
    known = isinstance(balance, Known) and not other_currency(pricing, balance)
    funds_micros = funds(balance) if known and isinstance(balance, Known) else None
    members["matched"] = rate.match
    return members | (
        _call_price(rate, funds_micros) if isinstance(query, CallQuery) else _unit_price(query, rate, funds_micros)
    )


def _call_price(rate: Rate, funds_micros: int | None) -> dict[str, Any]:
    return {
        "price_per_minute_micros": rate.rate_micros,
        "connect_fee_micros": rate.connect_fee_micros,
        "minimum_charge_micros": rate.minimum_charge_micros,
        "first_increment_seconds": rate.first_increment_seconds,
        "next_increment_seconds": rate.next_increment_seconds,
        "affordable_seconds": None if funds_micros is None else affordable_seconds(rate, funds_micros),
    }


def _unit_price(query: SmsQuery | MmsQuery | ItemQuery, rate: Rate, funds_micros: int | None) -> dict[str, Any]:
    per = "price_per_unit_micros" if isinstance(query, ItemQuery) else "price_per_segment_micros"
    price_micros = unit_price(rate, quantity_of(query))
    return {
        per: rate.rate_micros,
        "price_micros": price_micros if price_micros <= MAX_MICROS else None,
        "affordable_quantity": None if funds_micros is None else affordable_quantity(rate, funds_micros),
    }
