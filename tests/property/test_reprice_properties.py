"""Re-rating one session: its cost never falls below nothing, a refund stays, the same version changes nothing twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from billing.money import MAX_MICROS
from billing.rating.reprice import given_back, price_again
from billing.rating.tariff import Tariff
from schemas.catalogue import Rate, TariffVersion

money = st.integers(0, MAX_MICROS)


@given(money, money, st.data())
def test_a_corrected_session_costs_the_new_price_less_what_was_refunded(
    old: int, new: int, data: st.DataObject
) -> None:
    refunded = data.draw(st.integers(0, old))
    net = old - refunded
    after = net - given_back(net, refunded, new)
    assert after == (0 if refunded and not net else max(0, new - refunded))
    assert 0 <= after <= max(old, new)


@given(st.lists(money, min_size=1, max_size=6), st.data())
def test_any_run_of_refunds_and_re_ratings_ends_where_the_last_price_says(
    prices: list[int], data: st.DataObject
) -> None:
    net, refunded = prices[0], 0
    for price in prices[1:]:
        part = data.draw(st.integers(0, net))
        net, refunded = net - part, refunded + part
        net -= given_back(net, refunded, price)
        assert net >= 0
        assert given_back(net, refunded, price) == 0  # once more changes nothing


def rate(**changes: object) -> Rate:
    fields = {"kind": "call", "direction": "outbound", "match": "49", "rate_micros": 60, "description": ""}
    fields |= {"first_increment_seconds": 60, "next_increment_seconds": 6}
    fields |= {"connect_fee_micros": 0, "minimum_charge_micros": 0}
    return Rate(**(fields | changes))  # type: ignore[arg-type]


RATES = (
    rate(),
    rate(kind="sms", rate_micros=7),
    rate(kind="item", direction="", match="did", rate_micros=9),
    rate(kind="item", direction="", match="dear", rate_micros=MAX_MICROS),
)
TARIFF = Tariff(TariffVersion(timeline="t", plan="p", version=2, currency="USD", effective_ms=0, rates=RATES))


def test_each_kind_is_priced_by_its_own_rule_and_a_missing_price_is_never_free() -> None:
    assert price_again(TARIFF, "call", "outbound", "+4930", 61) == 66
    assert price_again(TARIFF, "sms", "outbound", "+4930", 3) == 21
    assert price_again(TARIFF, "item", "", "did", 2) == 18
    assert price_again(TARIFF, "item", "", "dear", 2) is None
    assert price_again(TARIFF, "call", "outbound", "+4430", 61) is None
    assert price_again(TARIFF, "call", "inbound", "+4930", 61) is None
    assert price_again(TARIFF, "item", "", "did2", 1) is None
