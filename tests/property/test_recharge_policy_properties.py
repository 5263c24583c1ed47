"""The caps as a property: whatever the history, a check that passes leaves every bound in place (R4)."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from billing.recharge.policy import (
    DAY_MS,
    FIRST_RETRY_MS,
    MAX_RETRY_MS,
    History,
    Limits,
    Refusal,
    Terms,
    back_off_ms,
    check_caps,
    check_switches,
    evaluate_again_ms,
)

NOW_MS = 10 * DAY_MS
AMOUNTS = st.integers(1, 10**6)
TIMES = st.none() | st.integers(NOW_MS - 2 * DAY_MS, NOW_MS)

histories = st.builds(
    History,
    open_intent=st.none(),
    count_today=st.integers(0, 7),
    amount_today_micros=st.integers(0, 10**7),
    newest_at_ms=TIMES,
    declines_in_a_row=st.integers(0, 6),
    last_decline_at_ms=TIMES,
    paused=st.booleans(),
    breaker_open=st.booleans(),
    breaker_room_micros=st.integers(-(10**7), 10**7),
)
clean = st.builds(
    History,
    open_intent=st.none(),
    count_today=st.integers(0, 4),
    amount_today_micros=st.integers(0, 10**6),
    newest_at_ms=st.none(),
    declines_in_a_row=st.just(0),
    last_decline_at_ms=st.none(),
    paused=st.just(False),
    breaker_open=st.just(False),
    breaker_room_micros=st.integers(0, 10**7),
)
terms = st.builds(
    Terms,
    recharge_below_micros=st.just(1),
    recharge_by_micros=AMOUNTS,
    customer=st.just("cus_1"),
    payment_method=st.just("pm_1"),
    daily_cap_micros=st.none() | st.integers(0, 10**7),
    closed=st.just(False),
)
LIMITS = Limits(breaker_per_minute_micros=10**7)


@given(histories | clean, terms)
def test_r4_what_passes_is_within_every_bound(history: History, terms: Terms) -> None:
    amount = terms.recharge_by_micros or 0
    cap = 5 * amount if terms.daily_cap_micros is None else terms.daily_cap_micros
    refusal = check_caps(history, terms, LIMITS, NOW_MS).refusal
    within = (
        not history.paused
        and not history.breaker_open
        and history.amount_today_micros + amount <= cap
        and history.count_today + 1 <= LIMITS.count_per_day
        and (history.newest_at_ms is None or NOW_MS - history.newest_at_ms >= LIMITS.minimum_interval_ms)
        and history.declines_in_a_row < LIMITS.pause_after_declines
        and (history.last_decline_at_ms is None or NOW_MS - history.last_decline_at_ms >= back_off_ms(history, LIMITS))
        and amount <= history.breaker_room_micros
    )
    assert (refusal is None) == within
    if refusal is None:
        assert check_switches(history).refusal is None


@given(clean, terms, st.integers(0, 10**6), st.integers(0, 5))
def test_r4_more_counted_money_never_allows_what_less_forbade(
    history: History, terms: Terms, more_micros: int, more: int
) -> None:
    worse = replace(
        history,
        count_today=history.count_today + more,
        amount_today_micros=history.amount_today_micros + more_micros,
        breaker_room_micros=history.breaker_room_micros - more_micros,
    )
    if check_caps(history, terms, LIMITS, NOW_MS).refusal is not None:
        assert check_caps(worse, terms, LIMITS, NOW_MS).refusal is not None


@given(st.lists(st.tuples(AMOUNTS, st.booleans()), max_size=40), st.integers(0, 10**6), st.integers(0, 10**6))
def test_r4_no_sequence_of_charges_passes_the_day_or_the_breaker(
    charges: list[tuple[int, bool]], cap_micros: int, breaker_micros: int
) -> None:
    """One after the other, each counted until it is definitively declined."""
    counted: list[int] = []
    limits = replace(Limits(), minimum_interval_ms=0, breaker_per_minute_micros=breaker_micros)
    for amount, declined in charges:
        history = History(
            open_intent=None,
            count_today=len(counted),
            amount_today_micros=sum(counted),
            newest_at_ms=NOW_MS,
            declines_in_a_row=0,
            last_decline_at_ms=None,
            paused=False,
            breaker_open=False,
            breaker_room_micros=breaker_micros - sum(counted),
        )
        asked = Terms(1, amount, "cus_1", "pm_1", cap_micros, closed=False)
        if check_caps(history, asked, limits, NOW_MS).refusal is None and not declined:
            counted.append(amount)
        assert sum(counted) <= min(cap_micros, breaker_micros)
        assert len(counted) <= limits.count_per_day


@given(histories, terms)
def test_r4_only_a_charge_that_nothing_else_forbids_trips_the_breaker(history: History, terms: Terms) -> None:
    if check_caps(history, terms, LIMITS, NOW_MS).refusal is Refusal.BREAKER_TRIPPED:
        roomy = replace(history, breaker_room_micros=10**9)
        assert check_caps(roomy, terms, LIMITS, NOW_MS).refusal is None


@given(st.sampled_from(Refusal), st.integers(0, 10**9))
def test_r11_every_refusal_is_looked_at_again_within_bounds_or_not_before_a_signal(
    refusal: Refusal, times: int
) -> None:
    again_ms = evaluate_again_ms(refusal, times)
    assert again_ms is None or FIRST_RETRY_MS <= again_ms <= max(MAX_RETRY_MS, 60_000)
