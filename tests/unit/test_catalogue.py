"""The catalogue: idempotent, effective-dated, with a horizon, and a conflict that halts."""

from __future__ import annotations

import itertools
import sys
import tracemalloc

import pytest
import usage_builders as build

from billing.rating.catalogue import LEAD_MS, AccountEntry, Catalogue
from schemas.catalogue import CatalogueMessage, Heartbeat, Rate, catalogue_key, encode_catalogue
from schemas.common import MalformedMessage

NOW = build.NOW_MS


def _plan(catalogue: Catalogue, time_ms: int) -> tuple[str, int] | None:
    entry = catalogue.account(build.ACCOUNT)
    assert entry is not None
    tariff = catalogue.price_plan(entry, time_ms)
    return None if tariff is None else (tariff.plan, tariff.version)


def test_an_account_has_its_home_and_where_its_usage_begins() -> None:
    entry = build.catalogue().account(build.ACCOUNT)
    assert isinstance(entry, AccountEntry)
    assert (entry.home_partition, entry.usage_position) == (build.HOME, 100)
    assert build.catalogue().account("nobody") is None


def test_the_first_version_applies_from_the_beginning_of_time() -> None:
    catalogue = build.catalogue()
    assert [_plan(catalogue, time_ms) for time_ms in (-(10**15), 0, NOW)] == [("basic", 1)] * 3


def test_s41_a_later_version_applies_from_its_time_on() -> None:
    catalogue = build.catalogue(
        build.tariff(), build.tariff(version=2, effective_ms=NOW), build.assignment(), build.heartbeat()
    )
    assert [_plan(catalogue, NOW + step) for step in (-1, 0, 1)] == [("basic", 1), ("basic", 2), ("basic", 2)]


def test_s47_a_later_plan_applies_from_its_time_on() -> None:
    catalogue = build.catalogue(
        build.tariff(),
        build.tariff(plan="gold"),
        build.assignment(),
        build.assignment(version=2, plan="gold", effective_ms=NOW),
    )
    assert [_plan(catalogue, NOW + step) for step in (-1, 0)] == [("basic", 1), ("gold", 1)]


def test_a_version_loaded_later_may_take_effect_earlier() -> None:
    catalogue = build.catalogue(
        build.tariff(),
        build.tariff(version=2, effective_ms=NOW + 1000),
        build.tariff(version=3, effective_ms=NOW),
        build.assignment(),
    )
    steps = (-1, 0, 999, 1000)
    assert [_plan(catalogue, NOW + step) for step in steps] == [(("basic"), version) for version in (1, 3, 3, 2)]


def test_r7_any_order_and_any_repeats_give_the_same_catalogue() -> None:
    messages: list[CatalogueMessage] = [
        build.tariff(),
        build.tariff(version=2, effective_ms=NOW),
        build.assignment(),
        build.assignment(version=2, plan="gold", effective_ms=NOW + 5),
        build.tariff(plan="gold"),
        build.heartbeat(),
    ]
    for order in itertools.permutations(messages):
        catalogue = build.catalogue(*order, *order)
        assert catalogue.conflict is None
        assert [_plan(catalogue, NOW + step) for step in (-1, 0, 4, 5)] == [
            ("basic", 1),
            ("basic", 2),
            ("basic", 2),
            ("gold", 1),
        ]


def test_the_horizon_is_the_newest_heartbeat_plus_the_lead() -> None:
    catalogue = build.catalogue(build.tariff())
    assert catalogue.horizon_ms is None
    for as_of_ms in (NOW, NOW - 5000, NOW):
        catalogue.apply(encode_catalogue(build.heartbeat(as_of_ms), NOW))
        assert catalogue.horizon_ms == NOW + LEAD_MS


def test_a_plan_without_a_tariff_has_no_price() -> None:
    assert _plan(build.catalogue(build.assignment(), build.heartbeat()), NOW) is None


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (build.heartbeat(timeline="t2"), "timeline t2 after t1"),
        (build.assignment(usage_position=101), "two places"),
        (build.assignment(home_partition=(build.HOME + 1) % 8), "two places"),
        (build.assignment(plan="gold"), "two contents"),
        (build.tariff("call,outbound,1,9,,,,,\n"), "two contents"),
        (build.tariff(version=2, effective_ms=NOW, currency="EUR"), "currencies USD and EUR"),
    ],
)
def test_s28_what_does_not_fit_together_is_a_conflict_that_stays(second: CatalogueMessage, what: str) -> None:
    catalogue = build.catalogue()
    assert catalogue.conflict is None
    before = _plan(catalogue, NOW)
    catalogue.apply(encode_catalogue(second, NOW))
    assert catalogue.conflict is not None
    assert what in catalogue.conflict
    assert catalogue.timeline == "t1"
    assert _plan(catalogue, NOW) == before
    first = catalogue.conflict
    catalogue.apply(encode_catalogue(build.heartbeat(timeline="t3"), NOW))
    assert catalogue.conflict == first


def _rate(**changes: object) -> Rate:
    fields: dict[str, object] = {
        "kind": "call",
        "direction": "outbound",
        "match": "1",
        "rate_micros": 1,
        "first_increment_seconds": 60,
        "next_increment_seconds": 60,
        "connect_fee_micros": 0,
        "minimum_charge_micros": 0,
        "description": "",
    }
    return Rate(**(fields | changes))  # type: ignore[arg-type]  # fields by name, from a dict


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 5000,
        b'{"type":"catalogue.tariff.v2"}',
        encode_catalogue(build.tariff(rates=(_rate(next_increment_seconds=0),)), NOW),
        encode_catalogue(build.tariff(rates=(_rate(direction=""),)), NOW),
        encode_catalogue(build.tariff(rates=(_rate(kind="item"),)), NOW),
        encode_catalogue(build.tariff(rates=(_rate(rate_micros=-1),)), NOW),
        encode_catalogue(build.tariff(rates=(_rate(rate_micros=2**53),)), NOW),
    ],
)
def test_s13_a_malformed_message_is_raised_and_changes_nothing(value: bytes) -> None:
    catalogue = Catalogue()
    with pytest.raises(MalformedMessage, match=r"^billing\.tariffs: "):
        catalogue.apply(value)
    assert catalogue.plans() == []


def test_a_tombstone_is_passed() -> None:
    Catalogue().apply(None)


def test_a_million_accounts_stay_compact() -> None:
    values = [encode_catalogue(build.assignment(f"acct-{n:08d}", usage_position=n), NOW) for n in range(20_000)]
    catalogue = Catalogue()
    tracemalloc.start()
    try:
        for value in values:
            catalogue.apply(value)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(catalogue) == 20_000
    assert used / len(catalogue) < 300, f"{used / len(catalogue):.0f} bytes per account on {sys.version}"


def test_s16_the_later_of_two_places_counts_whatever_comes_last() -> None:
    """Partitions were added: the account moved, and a record from before may be told once more after that."""
    opened = build.assignment(home_partition=3, usage_position=100)
    moved = build.assignment(home_partition=9, usage_position=0, placed_ms=NOW)
    second = build.assignment(version=2, plan="other", effective_ms=NOW, home_partition=3, usage_position=100)
    assert catalogue_key(opened) != catalogue_key(moved)  # compaction keeps both, so that the order does not matter
    for order in itertools.permutations((opened, moved, second)):
        catalogue = build.catalogue(*order)
        entry = catalogue.account(build.ACCOUNT)
        assert entry is not None
        assert (entry.home_partition, entry.usage_position, catalogue.conflict) == (9, 0, None)
        assert [plan.version for plan in entry.plans] == [2, 1]
    elsewhere = build.assignment(home_partition=8, usage_position=0, placed_ms=NOW)
    assert build.catalogue(moved, elsewhere).conflict is not None


def test_s16_the_newest_heartbeat_says_for_how_many_partitions_homes_are_told() -> None:
    catalogue = build.catalogue(build.heartbeat(NOW))
    assert catalogue.partitions == 0
    catalogue.apply(encode_catalogue(Heartbeat(timeline="t1", as_of_ms=NOW + 2, partitions=12), NOW))
    catalogue.apply(encode_catalogue(Heartbeat(timeline="t1", as_of_ms=NOW + 1, partitions=8), NOW))  # repeated late
    assert catalogue.partitions == 12
