"""The demo's producer: the same seed makes the same day, and what it expects adds up."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import msgspec
import pytest

from billing.lab.oracle import Oracle
from billing.lab.poison import RECIPES, home_partition
from billing.lab.population import PLANS, decimal_micros, demo_accounts, tariff_file
from billing.lab.traffic import Mix, Traffic
from billing.lab.wire import Message
from schemas.reasons import DeadLetterReason

NOW_MS = 1_790_000_000_000
NO_TROUBLE = Mix(poison=0, repeat_same_id=0, repeat_other_id=0, differing=0, reordered=0, never_completed=0)


def _oracle() -> Oracle:
    return Oracle([(plan, tariff_file(plan)) for plan in PLANS])


def _run(seed: int, mix: Mix | None = None, seconds: int = 20) -> tuple[Traffic, list[Message]]:
    traffic = Traffic(seed, demo_accounts(), _oracle(), 8, mix)
    records = [record for tick in range(seconds * 100) for record in traffic.take(NOW_MS + 10 * tick, 5)]
    return traffic, records


def test_the_same_seed_makes_the_same_records() -> None:
    first, second = _run(7), _run(7)
    assert first[1] == second[1]
    assert first[0].expected == second[0].expected
    assert _run(8)[1] != first[1]


def test_every_record_is_accounted_for() -> None:
    traffic, records = _run(1)
    expected = traffic.expected
    assert expected.published == len(records) == sum(expected.by_type.values()) + len(expected.poison)
    assert sum(expected.charged.values()) == sum(expected.settled.values())
    assert expected.duplicates == expected.completions - len(expected.settled) > 0
    assert expected.open_holds.keys().isdisjoint(expected.settled)
    assert sum(expected.sessions_of().values()) == len(expected.settled)


def test_poison_has_every_reason_a_producer_can_cause() -> None:
    traffic, _ = _run(2, Mix(poison=0.5))
    assert set(traffic.expected.dead_letters()) == {reason.value for reason in DeadLetterReason}
    assert {reason for reason, _ in RECIPES} == set(DeadLetterReason)


def test_without_trouble_there_is_none() -> None:
    traffic, records = _run(3, NO_TROUBLE)
    assert traffic.expected.duplicates == traffic.expected.repeats == len(traffic.expected.poison) == 0
    assert len(set(records)) == len(records)


def test_a_few_accounts_are_busy_and_most_are_quiet() -> None:
    traffic, _ = _run(4, NO_TROUBLE)
    busiest = traffic.expected.sessions_of().most_common()
    assert busiest[0][1] > 20 * busiest[-1][1]


def test_both_modes_are_mixed() -> None:
    _, records = _run(5, NO_TROUBLE)
    modes = Counter(record.headers[0][1].split(b";")[0] for record in records)
    assert modes[b"application/cloudevents+json"] > 1000 < modes[b"application/json"]
    structured = next(r for r in records if r.headers[0][1].startswith(b"application/cloudevents"))
    assert structured.value is not None
    assert structured.key == msgspec.json.decode(structured.value)["subject"].encode()


def test_wrong_partition_needs_a_second_partition() -> None:
    traffic = Traffic(1, demo_accounts(), _oracle(), 1, Mix(poison=1.0))
    traffic.take(NOW_MS, 500)
    assert "wrong_partition" not in traffic.expected.dead_letters()


def test_home_partition_is_java_s() -> None:
    # from Kafka's own UtilsTest: murmur2("21") = -973932308, murmur2("foobar") = -790332482
    assert home_partition("21", 8) == (-973932308 & 0x7FFFFFFF) % 8
    assert home_partition("foobar", 7) == (-790332482 & 0x7FFFFFFF) % 7


@pytest.mark.parametrize(
    ("asked", "micros"),
    [
        (("us-standard", "call", "outbound", "+12025550123", 1), 14_000),
        (("us-standard", "call", "outbound", "+12025550123", 61), 28_000),
        (("us-standard", "call", "outbound", "+18005550123", 600), 0),
        (("us-standard", "call", "outbound", "+19005550123", 60), 1_500_000),
        (("us-business", "call", "outbound", "+447700900123", 31), round(Fraction(33_300 * 36, 60))),
        (("us-business", "call", "outbound", "+12025550123", 7), 1_960),
        (("eu-standard", "call", "outbound", "+4915112345678", 61), 10_000 + 65_168),
        (("eu-standard", "call", "outbound", "+491512345678", 0), 0),
        (("jp-standard", "call", "outbound", "+81312345678", 1), 26_400_000),
        (("jp-standard", "sms", "outbound", "short:24680", 3), 9_900_000),
        (("us-standard", "item", "", "lookup", 5), 40_000),
        (("us-standard", "call", "outbound", "+8821234567", 60), None),
    ],
)
def test_the_oracle_s_prices(asked: tuple[str, str, str, str, int], micros: int | None) -> None:
    assert _oracle().cost(*asked) == micros


def test_the_demo_s_accounts_fit_their_plans() -> None:
    accounts = demo_accounts()
    assert len({account.id for account in accounts}) == 200
    assert {account.currency for account in accounts} == {"USD", "EUR", "JPY"}
    assert all(PLANS[account.plan] == account.currency for account in accounts)


def test_decimal_micros_is_exact() -> None:
    assert decimal_micros("0.000001") == 1
    assert decimal_micros("20") == 20_000_000
    assert decimal_micros("") == 0
    with pytest.raises(ValueError, match="six decimal places"):
        decimal_micros("0.0000001")
