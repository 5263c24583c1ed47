"""Tariff files: what is read, and what is refused with line and column."""

from __future__ import annotations

import pytest

from billing.rating import tariff_csv
from billing.rating.tariff_csv import COLUMNS, TariffRefused, parse_tariff

HEADER = ",".join(COLUMNS)


def _parse(*lines: str) -> object:
    return parse_tariff("\n".join((HEADER, *lines, "")).encode())


def test_a_line_becomes_a_rate_in_micro_units() -> None:
    rates = parse_tariff(f"{HEADER}\ncall,outbound,1787,0.05,60,6,0.01,0.02,Puerto Rico\n".encode())
    assert isinstance(rates, tuple)
    (rate,) = rates
    assert (rate.kind, rate.direction, rate.match, rate.description) == ("call", "outbound", "1787", "Puerto Rico")
    assert (rate.rate_micros, rate.connect_fee_micros, rate.minimum_charge_micros) == (50_000, 10_000, 20_000)
    assert (rate.first_increment_seconds, rate.next_increment_seconds) == (60, 6)


def test_empty_fields_take_their_defaults() -> None:
    rates = _parse("call,inbound,1,0,,,,,", "sms,outbound,short:123,0.5,,,,,", "item,,number.local,1.15,0,0,0,0,x")
    assert isinstance(rates, tuple)
    call, sms, item = rates
    assert (call.first_increment_seconds, call.next_increment_seconds) == (60, 60)
    assert (call.connect_fee_micros, call.minimum_charge_micros) == (0, 0)
    assert (sms.match, sms.first_increment_seconds, sms.next_increment_seconds) == ("short:123", 0, 0)
    assert (item.direction, item.match, item.rate_micros) == ("", "number.local", 1_150_000)


def test_byte_order_mark_crlf_quotes_spaces_and_blank_lines_are_fine() -> None:
    text = f'\ufeff{HEADER}\r\n\r\ncall, outbound ,1,0.01,,,,,"North America, rest"\r\n,,,,,,,,\r\n'
    rates = parse_tariff(text.encode())
    assert isinstance(rates, tuple)
    assert [(rate.direction, rate.description) for rate in rates] == [("outbound", "North America, rest")]


GOOD = "call,outbound,1,0.01,,,,,"


@pytest.mark.parametrize(
    ("line", "column", "problem"),
    [
        ("fax,outbound,1,1,,,,,", "kind", "not call, sms, mms or item"),
        ("Call,outbound,1,1,,,,,", "kind", "not call"),
        ("call,,1,1,,,,,", "direction", "not inbound or outbound"),
        ("call,both,1,1,,,,,", "direction", "not inbound or outbound"),
        ("item,outbound,sku,1,,,,,", "direction", "must be empty"),
        ("call,outbound,,1,,,,,", "match", "a prefix"),
        ("call,outbound,+1,1,,,,,", "match", "a prefix"),
        ("call,outbound,01,1,,,,,", "match", "a prefix"),
        ("call,outbound,1234567890123456,1,,,,,", "match", "a prefix"),
        ("call,outbound,short:12,1,,,,,", "match", "a prefix"),
        ("call,outbound,12a,1,,,,,", "match", "a prefix"),
        ("sms,outbound,short:,1,,,,,", "match", "short:"),
        ("sms,outbound,short:1234567890123,1,,,,,", "match", "short:"),
        ("item,,a sku,1,,,,,", "match", "a sku"),
        ("call,outbound,2,,,,,,", "rate", "not a decimal"),
        ("call,outbound,2,-1,,,,,", "rate", "negative"),
        ("call,outbound,2,NaN,,,,,", "rate", "not a decimal"),
        ("call,outbound,2,1e3,,,,,", "rate", "not a decimal"),
        ("call,outbound,2,0.0000001,,,,,", "rate", "more than 6 decimals"),
        ("call,outbound,2,9007199254.740992,,,,,", "rate", "beyond 9007199254.740991"),
        ("call,outbound,2,1,0,6,,,", "first_increment_seconds", "whole number of seconds from 1"),
        ("call,outbound,2,1,60,0,,,", "next_increment_seconds", "whole number of seconds from 1"),
        ("call,outbound,2,1,60,-6,,,", "next_increment_seconds", "whole number of seconds from 1"),
        ("call,outbound,2,1,1.5,6,,,", "first_increment_seconds", "whole number of seconds from 1"),
        ("call,outbound,2,1,86401,6,,,", "first_increment_seconds", "86400"),
        ("sms,outbound,2,1,60,,,,", "first_increment_seconds", "only calls"),
        ("sms,outbound,2,1,,,0.01,,", "connect_fee", "only calls"),
        ("item,,sku,1,,,,0.01,", "minimum_charge", "only calls"),
        ("call,outbound,2,1,,,-0.01,,", "connect_fee", "negative"),
        ("call,outbound,2,1,,,,x,", "minimum_charge", "not a decimal"),
        ("call,outbound,2,1,,,,,tab\there", "description", "printable"),
        (f"call,outbound,2,1,,,,,{'x' * 201}", "description", "200"),
        (GOOD, "match", "already on line 2"),
        ("call,outbound,2,1", None, "4 fields, 9 expected"),
        (f"{GOOD},more", None, "10 fields, 9 expected"),
        ('call,outbound,2,1,,,,,"open', None, "not CSV"),
    ],
)
def test_the_first_wrong_field_is_named_by_line_and_column(line: str, column: str | None, problem: str) -> None:
    refused = _parse(GOOD, line)
    assert isinstance(refused, TariffRefused), refused
    assert (refused.line, refused.column) == (3, column)
    assert problem in refused.problem
    assert "\n" not in str(refused)
    assert str(refused).startswith("line 3" if column is None else f"line 3, column {column}: ")


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"", 1, "the header must be kind,direction,match"),
        (b"kind,direction,match,rate\n", 1, "the header must be"),
        (HEADER.upper().encode(), 1, "the header must be"),
        (HEADER.encode(), 1, "no rates"),
        (f"{HEADER}\n".encode() + b"call,outbound,1,1,,,,,caf\xe9\n", 2, "not UTF-8"),
    ],
)
def test_a_file_that_is_no_tariff_is_refused(content: bytes, line: int, problem: str) -> None:
    refused = parse_tariff(content)
    assert isinstance(refused, TariffRefused)
    assert (refused.line, refused.column) == (line, None)
    assert problem in refused.problem


def test_a_tariff_that_does_not_fit_one_record_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tariff_csv, "MAX_ENCODED_BYTES", 1000)
    refused = _parse(*(f"call,outbound,{n},1,,,,," for n in range(1, 20)))
    assert isinstance(refused, TariffRefused)
    assert "too large" in refused.problem


def test_the_same_match_in_another_direction_or_kind_is_no_repeat() -> None:
    rates = _parse(GOOD, "call,inbound,1,1,,,,,", "sms,outbound,1,1,,,,,", "mms,outbound,1,1,,,,,")
    assert isinstance(rates, tuple)
    assert len(rates) == 4
