"""The admission decision: each reason, their order of precedence, and what the answer shows."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import usage_builders as build

from billing.admission.decide import Policy, UnknownAccount, decide
from billing.admission.offer import NotListed, Offer, Pricing, Stale, find_offer
from billing.balance.balances import BalanceAnswer, Known, NoSuchAccount, Unknown
from billing.rating.catalogue import LEAD_MS
from billing.rating.price import call_price
from billing.stream.record import Position
from schemas.admission import (
    BY_POLICY,
    Authorization,
    AuthorizationQuery,
    AuthorizationReason,
    CallQuery,
    ItemQuery,
    Lag,
    MmsQuery,
    SmsQuery,
    UnknownPolicy,
)

US = CallQuery(direction="outbound", to="+12025550123")  # 0.0120 a minute, 60/6, fee 0.01, minimum 0.02
FREE = CallQuery(direction="outbound", to="+80012345678")
NOWHERE = CallQuery(direction="outbound", to="+442079460000")
SMS = SmsQuery(direction="outbound", to="+12025550123", segments=3)  # 0.0079 each
CURRENT = Lag(records=0, age_ms=400)
DEAR = ItemQuery(sku="number.dear", quantity=2)


def known(available: int = 20_000_000, **changes: Any) -> Known:
    fields: dict[str, Any] = {
        "account": build.ACCOUNT,
        "currency": "USD",
        "credit_micros": available + 700,
        "used_micros": 500,
        "held_micros": 200,
        "credit_limit_micros": 0,
        "recharge_below_micros": None,
        "excluded_micros": 0,
        "ledger_seq": 7,
        "last_charge_offset": 41,
        "status": "open",
        "incarnation": "1",
        "positions": {"usage.events": Position(42, "f"), "ledger.entries": Position(9, "g")},
        "usage_position": 42,
        "log_time_ms": build.NOW_MS - 50,
    }
    return Known(**(fields | changes))


def offer(query: AuthorizationQuery, now_ms: int = build.NOW_MS) -> Pricing:
    return find_offer(build.catalogue(), build.ACCOUNT, query, now_ms)


def answer(
    query: AuthorizationQuery = US,
    balance: BalanceAnswer | None = None,
    pricing: Pricing | None = None,
    policy: UnknownPolicy = "allow",
    lag: Lag | None = CURRENT,
) -> Authorization:
    seen = known() if balance is None else balance
    found = decide(build.ACCOUNT, query, pricing or offer(query), seen, lag=lag, policy=Policy(policy, 30_000))
    assert isinstance(found, Authorization)
    return found


def test_a_call_that_is_paid_for_is_allowed_with_its_price_and_how_long_it_may_last() -> None:
    given = answer()
    assert (given.allowed, given.reason, given.policy) == (True, "ok", None)
    assert (given.balance.status, given.balance.available_micros) == ("known", 20_000_000)
    assert (given.currency, given.plan, given.tariff_version, given.matched) == ("USD", "basic", 1, "1")
    assert (given.price_per_minute_micros, given.connect_fee_micros, given.minimum_charge_micros) == (
        12_000,
        10_000,
        20_000,
    )
    assert (given.first_increment_seconds, given.next_increment_seconds) == (60, 6)
    # (20 - 0.01) / 0.012 = 1665.83 minutes = 99950 s; in sixes behind the first 60: 99948
    assert given.affordable_seconds == 99_948
    assert (given.price_micros, given.affordable_quantity, given.price_per_segment_micros) == (None, None, None)
    assert (given.as_of.log_time_ms, given.as_of.ledger_seq) == (build.NOW_MS - 50, 7)
    assert given.as_of.positions == {"usage.events": 42, "ledger.entries": 9}
    assert given.as_of.catalogue_ms == build.NOW_MS


def test_the_longest_affordable_call_is_payable_and_one_second_more_is_not() -> None:
    offered = offer(US)
    assert isinstance(offered, Offer)
    rate = offered.rate
    assert rate is not None
    for available in (0, 21_999, 22_000, 23_199, 23_200, 1_000_000):
        seconds = answer(balance=known(available)).affordable_seconds
        assert seconds is not None
        assert call_price(rate, seconds) <= available < call_price(rate, seconds + 1)


def test_the_credit_limit_is_spent_too_and_what_is_held_is_not() -> None:
    assert answer(balance=known(0, credit_limit_micros=22_000)).affordable_seconds == 60
    assert answer(balance=known(-1_000, credit_limit_micros=22_000)).reason == "insufficient"
    assert answer(balance=known(-22_000, credit_limit_micros=22_000)).reason == "exhausted"
    assert answer(balance=known(credit_micros=22_700)).affordable_seconds == 60  # 500 used, 200 held


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        (US, 22_000),
        (SMS, 23_700),
        (MmsQuery(direction="outbound", to="+12025550123"), 20_000),
        (ItemQuery(sku="number.local", quantity=2), 2_300_000),
    ],
)
def test_usage_needs_its_whole_least_cost(query: AuthorizationQuery, needed: int) -> None:
    assert answer(query, known(needed)).reason == "ok"
    assert answer(query, known(needed - 1)).reason == "insufficient"
    assert answer(query, known(0)).reason == "exhausted"
    assert answer(query, known(-1)).reason == "exhausted"


def test_messages_and_items_show_their_price_and_how_many_are_affordable() -> None:
    sms = answer(SMS, known(1_000_000))
    assert (sms.kind, sms.price_per_segment_micros, sms.price_micros, sms.affordable_quantity) == (
        "sms",
        7_900,
        23_700,
        126,
    )
    item = answer(ItemQuery(sku="number.local"), known(3_449_999))
    assert (item.kind, item.price_per_unit_micros, item.price_micros, item.affordable_quantity) == (
        "item",
        1_150_000,
        1_150_000,
        2,
    )
    assert (item.affordable_seconds, item.price_per_minute_micros) == (None, None)


def test_what_is_free_is_allowed_whatever_the_balance() -> None:
    for available in (0, -5_000_000):
        given = answer(FREE, known(available))
        assert (given.allowed, given.reason, given.affordable_seconds) == (True, "ok", 2**31 - 1)
    assert answer(FREE, known(status="suspended")).reason == "suspended"


def test_an_unknown_balance_has_no_amounts_and_the_policy_decides() -> None:
    given = answer(balance=Unknown("unavailable", "timeout"))
    assert (given.allowed, given.reason, given.policy) == (True, "balance_unknown", "allow")
    assert (given.balance.status, given.balance.reason, given.balance.detail) == ("unknown", "unavailable", "timeout")
    assert (given.balance.available_micros, given.affordable_seconds, given.as_of.positions) == (None, None, None)
    assert (given.price_per_minute_micros, given.currency) == (12_000, "USD")  # the price is known all the same
    denied = answer(balance=Unknown("rebuilding"), policy="deny")
    assert (denied.allowed, denied.reason, denied.policy) == (False, "balance_unknown", "deny")


@pytest.mark.parametrize(
    ("lag", "why"),
    [
        (Lag(records=3, age_ms=30_001), "3 records, more than 30000 ms old, are not in it yet"),
        (Lag(records=3, age_ms=None), "3 records, more than 30000 ms old, are not in it yet"),
        (Lag(records=0, age_ms=30_001), "the log was last read more than 30000 ms ago"),
        (None, "the log has not been read yet"),
    ],
)
def test_r1_a_balance_too_far_behind_the_log_is_unknown_not_guessed(lag: Lag | None, why: str) -> None:
    for policy in ("allow", "deny"):
        given = answer(balance=known(0), lag=lag, policy=policy)
        assert (given.allowed, given.reason, given.policy) == (policy == "allow", "balance_unknown", policy)
        assert (given.balance.reason, given.balance.detail) == ("behind", why)
        assert (given.balance.available_micros, given.affordable_seconds, given.lag) == (None, None, lag)
        assert given.as_of.ledger_seq == 7  # what was seen, all the same
    assert answer(lag=Lag(records=9, age_ms=30_000)).reason == "ok"
    assert answer(balance=Unknown("gap"), lag=lag).balance.reason == "gap"


def test_a_stale_catalogue_has_no_price_and_the_policy_decides() -> None:
    for policy in ("allow", "deny"):
        given = answer(pricing=Stale(5), policy=policy)
        assert (given.allowed, given.reason, given.policy) == (policy == "allow", "catalogue_stale", policy)
        assert (given.price_per_minute_micros, given.affordable_seconds, given.plan) == (None, None, None)
        assert (given.as_of.catalogue_ms, given.balance.available_micros) == (5, 20_000_000)


def test_another_currency_than_the_plans_is_not_compared() -> None:
    given = answer(balance=known(currency="EUR"))
    assert (given.reason, given.policy, given.affordable_seconds) == ("currency_mismatch", "allow", None)


def test_facts_are_not_overridden_by_a_policy() -> None:
    """What is known to be wrong is refused also where something else is unknown."""
    assert answer(NOWHERE, Unknown("rebuilding")).reason == "no_price"
    assert answer(balance=known(status="closed"), pricing=Stale(None)).reason == "closed"
    assert answer(balance=known(0), pricing=Stale(None)).reason == "exhausted"
    assert answer(DEAR, Unknown("rebuilding")).reason == "amount_out_of_range"
    assert answer(DEAR).price_micros is None


def test_an_account_is_unknown_only_where_both_views_say_so() -> None:
    missing = NoSuchAccount()
    assert decide("nobody", US, NotListed(1), missing, lag=None, policy=Policy("allow", 30_000)) == UnknownAccount(
        "nobody"
    )
    # shown before the catalogue lists it: the catalogue is behind
    assert answer(pricing=NotListed(1)).reason == "catalogue_stale"
    # listed, but not shown: the balance store is behind
    given = answer(balance=missing)
    assert (given.reason, given.balance.reason) == ("balance_unknown", "not_yet_shown")
    # nothing may be concluded from a stale catalogue, nor from an unknown store
    assert answer(balance=missing, pricing=Stale(None)).reason == "balance_unknown"
    assert answer(balance=Unknown("unavailable"), pricing=NotListed(1)).reason == "balance_unknown"


def test_reasons_are_given_in_their_order_of_precedence() -> None:
    """Over every combination of causes: the reason given is the first of those that apply."""
    order = list(AuthorizationReason)
    met = set()
    for status, query, listed, is_known, currency, funds in product(
        ("open", "suspended", "closed"),
        (US, FREE, NOWHERE, DEAR),
        (True, False),
        (True, False),
        ("USD", "EUR"),
        (0, 1, 20_000_000, 2**53 - 1),
    ):
        balance = known(funds, status=status, currency=currency) if is_known else Unknown("gap")
        pricing = offer(query) if listed else Stale(None)
        applies = {
            "closed": is_known and status == "closed",
            "suspended": is_known and status == "suspended",
            "no_price": listed and query is NOWHERE,
            "amount_out_of_range": listed and query is DEAR,
            "balance_unknown": not is_known,
            "currency_mismatch": listed and is_known and currency == "EUR",
            "exhausted": is_known and funds == 0 and not (listed and query is FREE),
            "catalogue_stale": not listed,
            "insufficient": listed and is_known and funds == 1 and query is US,
            "ok": True,
        }
        assert list(applies) == order
        expected = next(name for name in order if applies[name])
        given = answer(query, balance, pricing)
        assert given.reason == expected
        assert (given.policy is not None) == (expected in BY_POLICY)
        assert given.allowed == (expected == "ok" or expected in BY_POLICY)
        met.add(expected)
    assert met == set(order)


# --- what the catalogue offers ---------------------------------------------------------------------------------------


def test_an_offer_stands_up_to_the_catalogues_horizon_and_not_beyond() -> None:
    horizon_ms = build.NOW_MS + LEAD_MS
    assert isinstance(offer(US, horizon_ms), Offer)
    assert offer(US, horizon_ms + 1) == Stale(build.NOW_MS)


def test_without_a_catalogue_or_a_heartbeat_the_price_is_not_known() -> None:
    assert find_offer(None, build.ACCOUNT, US, 0) == Stale(None)
    without = build.catalogue(build.tariff(), build.assignment())
    assert find_offer(without, build.ACCOUNT, US, 0) == Stale(None)


def test_the_plan_and_tariff_of_the_moment_are_offered() -> None:
    later = build.NOW_MS + 1_000
    catalogue = build.catalogue(
        build.tariff(),
        build.tariff("call,outbound,1,0.5,,,,,\n", version=2, effective_ms=later),
        build.assignment(),
        build.heartbeat(),
    )
    for now_ms, version in ((later - 1, 1), (later, 2)):
        found = find_offer(catalogue, build.ACCOUNT, US, now_ms)
        assert isinstance(found, Offer)
        assert found.tariff is not None
        assert found.tariff.version == version
    assert find_offer(catalogue, "nobody", US, later) == NotListed(build.NOW_MS)


def test_a_plan_without_a_tariff_has_no_price() -> None:
    catalogue = build.catalogue(build.assignment(plan="other"), build.heartbeat())
    given = answer(pricing=find_offer(catalogue, build.ACCOUNT, US, build.NOW_MS))
    assert (given.reason, given.plan, given.currency) == ("no_price", None, "USD")
