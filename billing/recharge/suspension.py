"""When an exhausted account is suspended, and when that is lifted: the same discipline as for charges. Pure.

Suspended only where both books, both fresh, say that usage has exhausted the account, and no recharge can come until a
person acts. What is our own trouble (a store that is away, a pause, the breaker, a freeze) never suspends anyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from billing.recharge import policy
from billing.recharge.policy import History, LedgerView, Limits, Refusal, StoreView, Terms
from schemas.common import AccountStatus


class Hindrance(StrEnum):
    """Why a status stays as it is; in the order in which they are looked at."""

    STORE_UNHEALTHY = "store_unhealthy"
    BALANCE_UNKNOWN = "balance_unknown"
    STATUS = "status"  # not open, or not suspended
    NOT_OURS = "not_ours"  # an operator suspended it
    FROZEN = "frozen"
    LEDGER_LAGS = "ledger_lags"
    STORE_LAGS = "store_lags"
    NOT_EXHAUSTED = "not_exhausted"
    STILL_EXHAUSTED = "still_exhausted"
    BOOKS_DISAGREE = "books_disagree"
    INTENT_OPEN = "intent_open"
    RECHARGE_POSSIBLE = "recharge_possible"


HOPELESS = frozenset(
    {
        Refusal.NOT_CONFIGURED,
        Refusal.NOT_BELOW_THRESHOLD,  # a threshold below the end of the credit
        Refusal.CAP_MONEY_DAY,
        Refusal.CAP_COUNT_DAY,
        Refusal.DECLINES_BACK_OFF,
        Refusal.DECLINES_PAUSED,
    }
)
"""Refusals after which no recharge is on its way, for the account's own reasons."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What both questions are asked of."""

    store: StoreView
    ledger: LedgerView
    terms: Terms
    history: History
    status: AccountStatus
    credit_limit_micros: int
    suspended_by_us: bool
    now_ms: int


def suspension_hindrance(standing: Standing, limits: Limits) -> Hindrance | None:
    """Why the account is not suspended now; None: suspend it."""
    store, ledger, limit_micros = standing.store, standing.ledger, standing.credit_limit_micros
    hindrance = _untrustworthy(standing, limits, wanted="open")
    if hindrance is not None:
        return hindrance
    # debits other than usage are added back: they suspend nobody (R5)
    exhausted_in_store = store.used_micros > 0 and store.level_micros + limit_micros <= 0
    exhausted_in_ledger = ledger.used_micros > 0 and ledger.level_micros + limit_micros <= 0
    if not exhausted_in_store:
        return Hindrance.NOT_EXHAUSTED
    if not exhausted_in_ledger:
        return Hindrance.BOOKS_DISAGREE
    if standing.history.open_intent is not None:
        return Hindrance.INTENT_OPEN
    return None if recharge_is_hopeless(standing, limits) else Hindrance.RECHARGE_POSSIBLE


def resumption_hindrance(standing: Standing, limits: Limits) -> Hindrance | None:
    """Why a suspension is not lifted now; None: lift it."""
    store, ledger, limit_micros = standing.store, standing.ledger, standing.credit_limit_micros
    hindrance = _untrustworthy(standing, limits, wanted="suspended")
    if hindrance is not None:
        return hindrance
    if not standing.suspended_by_us:
        return Hindrance.NOT_OURS
    if store.credit_micros - store.used_micros + limit_micros <= 0:
        return Hindrance.STILL_EXHAUSTED
    if ledger.credit_micros - ledger.used_micros + limit_micros <= 0:
        return Hindrance.BOOKS_DISAGREE
    return None


def recharge_is_hopeless(standing: Standing, limits: Limits) -> bool:
    """No recharge can come without a person, or another day."""
    level = policy.check_level(standing.store, standing.terms)
    caps = policy.check_caps(standing.history, standing.terms, limits, standing.now_ms)
    return (level.refusal or caps.refusal) in HOPELESS


def _untrustworthy(standing: Standing, limits: Limits, *, wanted: AccountStatus) -> Hindrance | None:
    store, ledger = standing.store, standing.ledger
    tests = (
        (Hindrance.STORE_UNHEALTHY, not store.healthy),
        (Hindrance.BALANCE_UNKNOWN, store.unknown is not None),
        (Hindrance.STATUS, standing.status != wanted),
        (Hindrance.FROZEN, ledger.frozen),
        (Hindrance.LEDGER_LAGS, _lag_ms(ledger, store) > limits.ledger_lag_ms),
        (Hindrance.STORE_LAGS, _lag_ms(store, ledger) > limits.ledger_lag_ms),
    )
    return next((hindrance for hindrance, stands in tests if stands), None)


def _lag_ms(one: LedgerView | StoreView, other: LedgerView | StoreView) -> int:
    """How far `one` is behind `other` in the partition's log time; 0 where it has read as much."""
    return 0 if one.usage_position >= other.usage_position else max(0, other.log_time_ms - one.log_time_ms)
