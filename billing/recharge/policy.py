"""The checks before a charge, in their order, each a named verdict on what was seen. Pure.

Amounts are micro-units of the account's currency, times ms since 1970 UTC by the ledger's clock. Order and content:
design section 7. A check answers `Verdict(name, refusal, seen)`; `refusal` None means passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

DAY_MS = 86_400_000


class Refusal(StrEnum):
    """Every way in which a charge is refused; counted and stored under these names."""

    STORE_UNHEALTHY = "store_unhealthy"
    BALANCE_UNKNOWN = "balance_unknown"
    NOT_CONFIGURED = "not_configured"
    ACCOUNT_CLOSED = "account_closed"
    NOT_BELOW_THRESHOLD = "not_below_threshold"
    LEDGER_DISAGREES = "ledger_disagrees"
    LEDGER_LAGS = "ledger_lags"
    FROZEN = "frozen"
    NO_USAGE = "no_usage"
    INTENT_OPEN = "intent_open"
    PAUSED = "paused"
    BREAKER_OPEN = "breaker_open"
    BREAKER_TRIPPED = "breaker_tripped"  # this charge would have exceeded it: it is open from here on
    ABOVE_BREAKER = "above_breaker"  # more than a minute may ever move: this account's business, nobody else's
    CAP_MONEY_DAY = "cap_money_day"
    CAP_COUNT_DAY = "cap_count_day"
    MINIMUM_INTERVAL = "minimum_interval"
    DECLINES_BACK_OFF = "declines_back_off"
    DECLINES_PAUSED = "declines_paused"
    CARD_NOT_SAVED = "card_not_saved"  # the gateway does not know it yet: the worker saves it, then asks again
    PROOF_FAILED = "proof_failed"
    PROOF_STALE = "proof_stale"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check: its name, the refusal or None, and what it saw (plain values, stored as JSON)."""

    check: str
    refusal: Refusal | None
    seen: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that every account has, whether set or not. The day's money defaults to five increments."""

    count_per_day: int = 5
    minimum_interval_ms: int = 60_000
    decline_back_off_ms: tuple[int, ...] = (3_600_000, 6 * 3_600_000, DAY_MS)  # after the 1st, 2nd, 3rd decline
    pause_after_declines: int = 4
    ledger_lag_ms: int = 30_000
    proof_age_ms: int = 5_000
    money_caps_of_increments: int = 5
    breaker_per_minute_micros: int = 10_000_000_000  # 10,000.00 units of each currency, whichever it is


@dataclass(frozen=True, slots=True)
class Terms:
    """The account's recharge settings, in the ledger. Without a threshold, an increment and a payment method there is
    no automatic recharge. `card_saved`: the gateway keeps this payment method with this customer."""

    recharge_below_micros: int | None
    recharge_by_micros: int | None
    customer: str | None
    payment_method: str | None
    daily_cap_micros: int | None
    closed: bool
    card_saved: bool = True

    @property
    def complete(self) -> bool:
        return None not in (self.recharge_below_micros, self.recharge_by_micros, self.payment_method)


@dataclass(frozen=True, slots=True)
class StoreView:
    """The account as Redis shows it. `unknown` is the reason where the balance is not known (R1)."""

    healthy: bool
    health_reason: str
    unknown: str | None
    credit_micros: int = 0
    used_micros: int = 0
    excluded_debits_micros: int = 0
    usage_position: int = 0
    log_time_ms: int = 0

    @property
    def level_micros(self) -> int:
        """What is compared with the threshold: debits that no usage caused are added back (R5), holds left out."""
        return self.credit_micros - self.used_micros + self.excluded_debits_micros


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The account as the ledger shows it, read under the account's lock."""

    credit_micros: int
    used_micros: int
    excluded_debits_micros: int
    usage_position: int
    log_time_ms: int
    frozen: bool = False
    frozen_reason: str = ""

    @property
    def level_micros(self) -> int:
        return self.credit_micros - self.used_micros + self.excluded_debits_micros


@dataclass(frozen=True, slots=True)
class History:
    """The account's recharges and the switches, read in the transaction that would insert the intent.

    Every intent that is not definitively declined or cancelled counts (R4)."""

    open_intent: str | None
    count_today: int
    amount_today_micros: int
    newest_at_ms: int | None
    declines_in_a_row: int
    last_decline_at_ms: int | None
    paused: bool
    breaker_open: bool
    breaker_room_micros: int


def check_store(store: StoreView) -> Verdict:
    """1: a healthy primary as expected, and a balance that is known."""
    refusal = None
    if not store.healthy:
        refusal = Refusal.STORE_UNHEALTHY
    elif store.unknown is not None:
        refusal = Refusal.BALANCE_UNKNOWN
    return Verdict("store", refusal, {"health": store.health_reason, "unknown": store.unknown})


def check_level(store: StoreView, terms: Terms) -> Verdict:
    """2: below the threshold because of usage."""
    refusal = None
    if terms.closed:
        refusal = Refusal.ACCOUNT_CLOSED
    elif not terms.complete:
        refusal = Refusal.NOT_CONFIGURED
    elif store.level_micros >= (terms.recharge_below_micros or 0):
        refusal = Refusal.NOT_BELOW_THRESHOLD
    return Verdict(
        "level",
        refusal,
        {
            "level_micros": store.level_micros,
            "below_micros": terms.recharge_below_micros,
            "excluded_debits_micros": store.excluded_debits_micros,
        },
    )


def check_ledger(store: StoreView, ledger: LedgerView, terms: Terms, limits: Limits) -> Verdict:
    """3: the other books agree, and do not lag beyond the bound."""
    lag_ms = 0
    if ledger.usage_position < store.usage_position:
        lag_ms = max(0, store.log_time_ms - ledger.log_time_ms)
    refusal = None
    if ledger.frozen:
        refusal = Refusal.FROZEN
    elif store.used_micros <= 0:
        refusal = Refusal.NO_USAGE  # nothing but usage makes an account due (R5)
    elif lag_ms > limits.ledger_lag_ms:
        refusal = Refusal.LEDGER_LAGS
    elif ledger.used_micros <= 0 or ledger.level_micros >= (terms.recharge_below_micros or 0):
        refusal = Refusal.LEDGER_DISAGREES
    seen = {
        "level_micros": ledger.level_micros,
        "below_micros": terms.recharge_below_micros,
        "excluded_debits_micros": ledger.excluded_debits_micros,
        "lag_ms": lag_ms,
        "frozen": ledger.frozen_reason if ledger.frozen else None,
    }
    return Verdict("ledger", refusal, seen)


def check_episode(history: History) -> Verdict:
    """4: no open intent; an intent stays open until its credit is read back (R3)."""
    refusal = Refusal.INTENT_OPEN if history.open_intent else None
    return Verdict("episode", refusal, {"open_intent": history.open_intent})


def check_caps(history: History, terms: Terms, limits: Limits, now_ms: int) -> Verdict:
    """5: switches, the day's money and count, interval, declines, the card, and last the breaker's room, so that only a
    charge that nothing else forbids can trip it. The first that refuses is named."""
    amount = terms.recharge_by_micros or 0
    cap = terms.daily_cap_micros
    cap = limits.money_caps_of_increments * amount if cap is None else cap
    since_newest_ms = None if history.newest_at_ms is None else now_ms - history.newest_at_ms
    since_decline_ms = None if history.last_decline_at_ms is None else now_ms - history.last_decline_at_ms
    tests: tuple[tuple[Refusal, Callable[[], bool]], ...] = (
        (Refusal.PAUSED, lambda: history.paused),
        (Refusal.BREAKER_OPEN, lambda: history.breaker_open),
        (Refusal.ABOVE_BREAKER, lambda: amount > limits.breaker_per_minute_micros),
        (Refusal.CAP_MONEY_DAY, lambda: history.amount_today_micros + amount > cap),
        (Refusal.CAP_COUNT_DAY, lambda: history.count_today >= limits.count_per_day),
        (
            Refusal.MINIMUM_INTERVAL,
            lambda: since_newest_ms is not None and since_newest_ms < limits.minimum_interval_ms,
        ),
        (Refusal.DECLINES_PAUSED, lambda: history.declines_in_a_row >= limits.pause_after_declines),
        (
            Refusal.DECLINES_BACK_OFF,
            lambda: since_decline_ms is not None and since_decline_ms < back_off_ms(history, limits),
        ),
        (Refusal.CARD_NOT_SAVED, lambda: not terms.card_saved),
        (Refusal.BREAKER_TRIPPED, lambda: amount > history.breaker_room_micros),
    )
    refusal = next((name for name, refuses in tests if refuses()), None)
    return Verdict(
        "caps",
        refusal,
        {
            "amount_micros": amount,
            "today_micros": history.amount_today_micros,
            "today_count": history.count_today,
            "cap_micros": cap,
            "since_newest_ms": since_newest_ms,
            "declines_in_a_row": history.declines_in_a_row,
            "since_decline_ms": since_decline_ms,
            "card_saved": terms.card_saved,
            "paused": history.paused,
            "breaker_open": history.breaker_open,
            "breaker_room_micros": history.breaker_room_micros,
        },
    )


def check_switches(history: History) -> Verdict:
    """The part of 5 that is looked at again just before money moves: the pause switch and the breaker."""
    refusal = Refusal.PAUSED if history.paused else Refusal.BREAKER_OPEN if history.breaker_open else None
    return Verdict("switches", refusal, {"paused": history.paused, "breaker_open": history.breaker_open})


def until_refused(*checks: Callable[[], Verdict]) -> tuple[Verdict, ...]:
    """The checks in their order, none after the first that refuses: it would look at what is not to be trusted."""
    verdicts: list[Verdict] = []
    for check in checks:
        verdicts.append(check())
        if verdicts[-1].refusal is not None:
            break
    return tuple(verdicts)


def back_off_ms(history: History, limits: Limits) -> int:
    """How long after the last of `declines_in_a_row` declines the next try may come."""
    if history.declines_in_a_row <= 0:
        return 0
    steps = limits.decline_back_off_ms
    return steps[min(history.declines_in_a_row, len(steps)) - 1]


_NEVER = frozenset({Refusal.NOT_CONFIGURED, Refusal.ACCOUNT_CLOSED, Refusal.NOT_BELOW_THRESHOLD, Refusal.NO_USAGE})
_SLOW_MS: Mapping[Refusal, int] = {
    Refusal.FROZEN: 30_000,
    Refusal.PAUSED: 10_000,
    Refusal.BREAKER_OPEN: 10_000,
    Refusal.BREAKER_TRIPPED: 10_000,
    Refusal.ABOVE_BREAKER: 60_000,
    Refusal.CAP_MONEY_DAY: 60_000,
    Refusal.CAP_COUNT_DAY: 60_000,
    Refusal.MINIMUM_INTERVAL: 5_000,
    Refusal.DECLINES_BACK_OFF: 60_000,
    Refusal.DECLINES_PAUSED: 60_000,
}
FIRST_RETRY_MS = 250
MAX_RETRY_MS = 30_000


def evaluate_again_ms(refusal: Refusal, times: int) -> int | None:
    """When a refused account is evaluated again, `times` being how often in a row it was refused so; None: not before
    the next signal. What another process is about to change (the ledger settling, an open intent) is looked at soon,
    then less and less often."""
    if refusal in _NEVER:
        return None
    if refusal in _SLOW_MS:
        return _SLOW_MS[refusal]
    return min(MAX_RETRY_MS, FIRST_RETRY_MS << min(max(times - 1, 0), 16))
