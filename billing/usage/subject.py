"""The account that a record is about, as far as its bytes say, whether or not they are an event. Pure."""

from __future__ import annotations

import re

import msgspec

from billing.stream.record import Record
from schemas.common import ID_PATTERN

MAX_LOOKED_AT_BYTES = 1024 * 1024
"""Of a value; an event of ours is a few hundred bytes."""


class _Subject(msgspec.Struct):
    subject: str | None = None


_is_id = re.compile(ID_PATTERN.removesuffix("$")).fullmatch
_decode = msgspec.json.Decoder(_Subject).decode


def subject_of(record: Record) -> str | None:
    """The event's subject (structured or binary mode), else the key; None where neither is an account's id."""
    for candidate in (_in_value(record.value), _in_headers(record), _text(record.key)):
        if candidate is not None and _is_id(candidate) is not None:
            return candidate
    return None


def _in_value(value: bytes | None) -> str | None:
    if value is None or len(value) > MAX_LOOKED_AT_BYTES:
        return None
    try:
        return _decode(value).subject
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _in_headers(record: Record) -> str | None:
    found = [value for name, value in record.headers if name.lower() == "ce_subject"]
    return _text(found[-1]) if found else None


def _text(part: bytes | None) -> str | None:
    if part is None:
        return None
    try:
        return part.decode()
    except UnicodeDecodeError:
        return None
