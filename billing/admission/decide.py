"""May this usage begin? Pure: from what the catalogue offers and what the balance store said to the answer.

Facts decide wherever they are known. Where one that is needed is unknown, the policy decides and the answer says so;
an unknown balance is never taken for zero, nor for enough (R1).
"""

from __future__ import annotations

from dataclasses import dataclass

from billing.admission.answer import as_of, balance_seen, funds, other_currency, price_members
from billing.admission.lag import believed
from billing.admission.offer import NotListed, Offer, Pricing
from billing.admission.request import kind_of, quantity_of
from billing.balance.balances import BalanceAnswer, Known, NoSuchAccount, Unknown
from billing.money import MAX_MICROS
from billing.rating.price import call_price, unit_price
from schemas.admission import (
    BY_POLICY,
    Authorization,
    AuthorizationQuery,
    AuthorizationReason,
    CallQuery,
    Lag,
    UnknownPolicy,
)
from schemas.catalogue import Rate


@dataclass(frozen=True, slots=True)
class UnknownAccount:
    """Neither a current catalogue nor a healthy balance store has the account."""

    account: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What is answered where the facts are unknown, and how far behind the log a balance may be to be one."""

    unknown: UnknownPolicy
    behind_ms: int


def decide(
    account: str, query: AuthorizationQuery, pricing: Pricing, seen: BalanceAnswer, *, lag: Lag | None, policy: Policy
) -> Authorization | UnknownAccount:
    """The answer to `query`. `seen` is what the store said, and `lag` how far that is behind the log. `policy` decides
    where the facts are unknown (`schemas.admission.BY_POLICY`)."""
    balance = believed(seen, lag, policy.behind_ms)
    if isinstance(balance, NoSuchAccount):
        if isinstance(pricing, NotListed):
            return UnknownAccount(account)
        balance = Unknown("not_yet_shown")
    reason = _reason(query, pricing, balance)
    by_policy = reason in BY_POLICY
    allowed = policy.unknown == "allow" if by_policy else reason is AuthorizationReason.OK
    return Authorization(
        account=account,
        kind=kind_of(query),
        allowed=allowed,
        reason=reason,
        policy=policy.unknown if by_policy else None,
        balance=balance_seen(balance),
        as_of=as_of(pricing, seen),
        lag=lag if isinstance(seen, Known) else None,
        **price_members(query, pricing, balance),
    )


def _reason(query: AuthorizationQuery, pricing: Pricing, balance: Known | Unknown) -> AuthorizationReason:
    """The first that applies, in the order of AuthorizationReason."""
    if isinstance(balance, Known) and balance.status == "closed":
        return AuthorizationReason.CLOSED
    if isinstance(balance, Known) and balance.status == "suspended":
        return AuthorizationReason.SUSPENDED
    rate = pricing.rate if isinstance(pricing, Offer) else None
    if rate is None and isinstance(pricing, Offer):
        return AuthorizationReason.NO_PRICE
    cost_micros = None if rate is None else _least_cost(query, rate)
    if cost_micros is not None and cost_micros > MAX_MICROS:
        return AuthorizationReason.AMOUNT_OUT_OF_RANGE
    if isinstance(balance, Unknown):
        return AuthorizationReason.BALANCE_UNKNOWN
    return _against_funds(pricing, balance, cost_micros)


def _against_funds(pricing: Pricing, balance: Known, cost_micros: int | None) -> AuthorizationReason:
    if other_currency(pricing, balance):
        return AuthorizationReason.CURRENCY_MISMATCH
    funds_micros = funds(balance)
    if cost_micros is not None and cost_micros <= max(funds_micros, 0):
        return AuthorizationReason.OK
    if funds_micros <= 0:
        return AuthorizationReason.EXHAUSTED
    return AuthorizationReason.CATALOGUE_STALE if cost_micros is None else AuthorizationReason.INSUFFICIENT


def _least_cost(query: AuthorizationQuery, rate: Rate) -> int:
    """What must be affordable: a call's first second, all of anything else."""
    return call_price(rate, 1) if isinstance(query, CallQuery) else unit_price(rate, quantity_of(query))
