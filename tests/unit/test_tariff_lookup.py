"""Longest-prefix match by kind and direction, skus, and the bounded memo."""

from __future__ import annotations

import pytest
import usage_builders as build

from billing.rating import tariff as module
from billing.rating.tariff import PrefixTable, Tariff
from schemas.catalogue import RateDirection, TariffKind

TARIFF = Tariff(build.tariff())


@pytest.mark.parametrize(
    ("kind", "direction", "to", "match"),
    [
        ("call", "outbound", "+12025550123", "1"),
        ("call", "outbound", "+17875550123", "1787"),
        ("call", "outbound", "+17865550123", "1"),
        ("call", "outbound", "+4915112345678", "49"),
        ("call", "outbound", "+442079460000", None),
        ("call", "inbound", "+17875550123", "1"),
        ("call", "inbound", "+4915112345678", None),
        ("sms", "outbound", "+4915112345678", "49"),
        ("sms", "outbound", "short:12", "short:12"),
        ("sms", "outbound", "short:12345", "short:12"),
        ("sms", "outbound", "short:13345", None),
        ("sms", "outbound", "+12", "1"),
        ("sms", "inbound", "short:12345", None),
        ("mms", "outbound", "short:12345", None),
        ("mms", "inbound", "+12025550123", None),
    ],
)
def test_the_longest_prefix_of_kind_and_direction_wins(
    kind: TariffKind, direction: RateDirection, to: str, match: str | None
) -> None:
    for _ in range(2):  # the second time from the memo
        rate = TARIFF.match(kind, direction, to)
        assert (rate and rate.match) == match


def test_short_codes_match_only_short_codes() -> None:
    tariff = Tariff(build.tariff("sms,outbound,12,1,,,,,\nsms,outbound,short:34,1,,,,,\n"))
    assert tariff.match("sms", "outbound", "short:1234") is None
    assert tariff.match("sms", "outbound", "+3412345678") is None


def test_skus_match_exactly() -> None:
    assert TARIFF.item("number.local") is not None
    assert TARIFF.item("number.locals") is None
    assert TARIFF.item("number") is None


def test_the_memo_shares_numbers_of_one_destination_and_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMO_LIMIT", 10)
    table = PrefixTable({f"+{rate.match}": rate for rate in build.rates() if rate.kind == "call"})
    for number in range(1000):
        assert table.search(f"+1202555{number:04d}") is not None
    assert len(table.memo) == 1
    for prefix in range(1000, 2000):
        table.search(f"+{prefix}5550123")
        assert len(table.memo) <= 10
