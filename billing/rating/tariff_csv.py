"""Tariff files: CSV in, rates out, or the first thing that is wrong with its line and column."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

import msgspec

from billing.money import AmountRefused, parse_micros
from schemas.catalogue import Rate, RateDirection, TariffKind

COLUMNS = (
    "kind",
    "direction",
    "match",
    "rate",
    "first_increment_seconds",
    "next_increment_seconds",
    "connect_fee",
    "minimum_charge",
    "description",
)
MAX_ENCODED_BYTES = 15 * 2**20
"""A tariff version travels as one record of billing.tariffs, whose limit is 16 MiB."""

_DEFAULT_INCREMENT_SECONDS = 60
_MAX_INCREMENT_SECONDS = 86_400
_MAX_DESCRIPTION = 200
_KINDS: dict[str, TariffKind] = {"call": "call", "sms": "sms", "mms": "mms", "item": "item"}
_DIRECTIONS: dict[str, RateDirection] = {"inbound": "inbound", "outbound": "outbound"}
_PREFIX = re.compile(r"[1-9][0-9]{0,14}")
_MESSAGE_PREFIX = re.compile(r"[1-9][0-9]{0,14}|short:[0-9]{1,12}")
_SKU = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class TariffRefused:
    """The file is no tariff: what is wrong, where. `column` is None where the whole line is meant."""

    line: int
    column: str | None
    problem: str

    def __str__(self) -> str:
        where = f"line {self.line}" if self.column is None else f"line {self.line}, column {self.column}"
        return f"{where}: {self.problem}"


class _Wrong(Exception):
    """Inside this module only: leaves the parsing of a row at the first wrong field."""

    def __init__(self, column: str | None, problem: str) -> None:
        super().__init__(problem)
        self.column = column
        self.problem = problem


def parse_tariff(content: bytes) -> tuple[Rate, ...] | TariffRefused:
    """The rates of a tariff file: UTF-8 (a byte order mark is fine), the header `COLUMNS`, one rate a line.

    Blank lines are skipped. Refused: anything malformed, a repeated (kind, direction, match), no rates at all.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return TariffRefused(content.count(b"\n", 0, error.start) + 1, None, "not UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    seen: dict[tuple[str, str, str], int] = {}
    rates: list[Rate] = []
    try:
        _check_header(next(reader, []))
        for row in reader:
            if not any(field.strip() for field in row):
                continue
            rate = _rate(row)
            _check_new(rate, reader.line_num, seen)
            rates.append(rate)
    except _Wrong as wrong:
        return TariffRefused(max(reader.line_num, 1), wrong.column, wrong.problem)
    except csv.Error as error:
        return TariffRefused(max(reader.line_num, 1), None, f"not CSV: {error}")
    if not rates:
        return TariffRefused(max(reader.line_num, 1), None, "no rates")
    if len(msgspec.json.encode(rates)) > MAX_ENCODED_BYTES:
        return TariffRefused(reader.line_num, None, f"too large: more than {MAX_ENCODED_BYTES} bytes as one message")
    return tuple(rates)


def _check_header(row: list[str]) -> None:
    if tuple(field.strip() for field in row) != COLUMNS:
        raise _Wrong(None, f"the header must be {','.join(COLUMNS)}")


def _check_new(rate: Rate, line: int, seen: dict[tuple[str, str, str], int]) -> None:
    first = seen.setdefault((rate.kind, rate.direction, rate.match), line)
    if first != line:
        raise _Wrong("match", f"{rate.kind} {rate.direction} {rate.match} is already on line {first}")


def _rate(row: list[str]) -> Rate:
    if len(row) != len(COLUMNS):
        raise _Wrong(None, f"{len(row)} fields, {len(COLUMNS)} expected")
    field = dict(zip(COLUMNS, (value.strip() for value in row), strict=True))
    kind = _KINDS.get(field["kind"])
    if kind is None:
        raise _Wrong("kind", f"{_shown(field['kind'])} is not call, sms, mms or item")
    is_call = kind == "call"
    return Rate(
        kind=kind,
        direction=_direction(kind, field["direction"]),
        match=_match(kind, field["match"]),
        rate_micros=_amount("rate", field["rate"]),
        first_increment_seconds=_increment(is_call, "first_increment_seconds", field["first_increment_seconds"]),
        next_increment_seconds=_increment(is_call, "next_increment_seconds", field["next_increment_seconds"]),
        connect_fee_micros=_fee(is_call, "connect_fee", field["connect_fee"]),
        minimum_charge_micros=_fee(is_call, "minimum_charge", field["minimum_charge"]),
        description=_description(field["description"]),
    )


def _direction(kind: TariffKind, text: str) -> RateDirection:
    if kind == "item":
        if text:
            raise _Wrong("direction", f"{_shown(text)}: must be empty for item")
        return ""
    direction = _DIRECTIONS.get(text)
    if direction is None:
        raise _Wrong("direction", f"{_shown(text)} is not inbound or outbound")
    return direction


def _match(kind: TariffKind, text: str) -> str:
    if kind == "item":
        pattern, expected = _SKU, "a sku: 1 to 64 of A-Z a-z 0-9 . _ : -"
    elif kind == "call":
        pattern, expected = _PREFIX, "a prefix: 1 to 15 digits without plus, the first not 0"
    else:
        pattern = _MESSAGE_PREFIX
        expected = "a prefix: 1 to 15 digits without plus, the first not 0, or short: and 1 to 12 digits"
    if pattern.fullmatch(text) is None:
        raise _Wrong("match", f"{_shown(text)} is not {expected}")
    return text


def _amount(column: str, text: str) -> int:
    amount = parse_micros(text)
    if isinstance(amount, AmountRefused):
        raise _Wrong(column, f"{_shown(text)}: {amount.problem}")
    if amount < 0:
        raise _Wrong(column, f"{_shown(text)} is negative")
    return amount


def _fee(is_call: bool, column: str, text: str) -> int:
    amount = _amount(column, text) if text else 0
    if amount and not is_call:
        raise _Wrong(column, f"{_shown(text)}: only calls have one")
    return amount


def _increment(is_call: bool, column: str, text: str) -> int:
    if not text:
        return _DEFAULT_INCREMENT_SECONDS if is_call else 0
    seconds = int(text) if _SECONDS.fullmatch(text) else -1
    if not is_call:
        if seconds != 0:
            raise _Wrong(column, f"{_shown(text)}: only calls have increments")
        return 0
    if not 1 <= seconds <= _MAX_INCREMENT_SECONDS:
        raise _Wrong(column, f"{_shown(text)} is not a whole number of seconds from 1 to {_MAX_INCREMENT_SECONDS}")
    return seconds


def _description(text: str) -> str:
    if len(text) > _MAX_DESCRIPTION or not text.isprintable():
        raise _Wrong("description", f"not at most {_MAX_DESCRIPTION} printable characters")
    return text


def _shown(text: str) -> str:
    """A field's text in an error: quoted, on one line, short."""
    return ascii(text[:40])
