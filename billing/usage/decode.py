"""From a record of `usage.events` to an event: one decoder for both CloudEvents modes.

A content type beginning with `application/cloudevents` (any case) means structured JSON, even beside `ce_` headers;
everything else is read as binary mode. A binary-mode record is rewritten as its structured form and takes the same
path, so that the two modes cannot disagree.

The way that almost every record takes is one typed msgspec decode and one regular expression. Only when that
failed is the record looked at again, to find the reason that is first in DeadLetterReason's order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from billing.stream.record import Record
from schemas.common import CONTENT_TYPE
from schemas.reasons import DeadLetterReason
from schemas.usage import (
    CallCompletedEvent,
    CallProgressedEvent,
    CallStartedEvent,
    Event,
    ItemCompletedEvent,
    MessageAcceptedEvent,
    MessageCompletedEvent,
    Tick,
)

MAX_NESTING = 256
"""Deeper JSON is refused: how deep the decoder could go depends on the process, and a verdict must not."""

_SHALLOW = 2 * MAX_NESTING  # so many bytes cannot be deeper: each level is opened and closed

_STRUCTURED = b"application/cloudevents"
_BATCH = b"application/cloudevents-batch"
_USUAL_HEADERS = tuple((("content-type", value),) for value in (CONTENT_TYPE, b"application/cloudevents+json"))
_ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time")
_TICK_TYPE = "billing.tick.v1"
_TICK_NEEDS = ("id", "source", "type")  # a tick is about no account, and its time would mean nothing
_BACKSLASH = ord("\\")
_NUL = b"\\u0000"  # how a NUL is written inside JSON text; PostgreSQL's text cannot hold one


class Undecodable(msgspec.Struct, frozen=True, gc=False):
    """The record is no event of ours. `detail` is short printable ASCII."""

    reason: DeadLetterReason
    detail: str


_CallEvent: TypeAlias = CallStartedEvent | CallProgressedEvent | CallCompletedEvent
_MessageEvent: TypeAlias = MessageAcceptedEvent | MessageCompletedEvent

_decode_event = msgspec.json.Decoder(Event).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode

_TYPES = frozenset(
    cls.__struct_config__.tag
    for cls in (
        CallStartedEvent,
        CallProgressedEvent,
        CallCompletedEvent,
        MessageAcceptedEvent,
        MessageCompletedEvent,
        ItemCompletedEvent,
        Tick,
    )
)
# What msgspec raises for bytes that are not the asked-for JSON; datetimes add ValueError and OverflowError.
_DECODING_ERRORS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)

_ID = r"[A-Za-z0-9._:-]{1,64}"
_E164 = r"\+[1-9][0-9]{6,14}"
_is_id = re.compile(_ID).fullmatch
_is_e164 = re.compile(_E164).fullmatch
_is_message_to = re.compile(rf"{_E164}|short:[0-9]{{3,12}}").fullmatch
# Ids hold no space, so one match of the values joined by spaces is a match of each.
_is_call = re.compile(rf"{_ID} {_ID} {_E164}").fullmatch
_is_message = re.compile(rf"{_ID} {_ID} (?:{_E164}|short:[0-9]{{3,12}})").fullmatch
_is_item = re.compile(rf"{_ID} {_ID} {_ID}").fullmatch


def decode(record: Record) -> Event | Undecodable:
    """The event in `record`, or the first reason why there is none. Never raises."""
    value = record.value
    if (
        value is None or len(value) > _SHALLOW or not value.isascii() or _BACKSLASH in value
        or record.headers not in _USUAL_HEADERS
    ):  # fmt: skip
        return _decode_unusual(record)
    # What almost every record is, in as few calls as possible: this is a quarter of the consumer's time.
    try:
        event: Event = _decode_event(value)
    except _DECODING_ERRORS as error:
        return _explain(value, str(error))
    if _CHECKS[type(event)](event):
        return event
    return Undecodable(DeadLetterReason.INVALID_DATA, _character_problem(event))


def _decode_unusual(record: Record) -> Event | Undecodable:
    """The same in full: other headers, binary mode, large values, text that is not ASCII or has escapes."""
    content_type: bytes | None = None
    for name, value in record.headers:
        if name == "content-type" or name.lower() == "content-type":
            content_type = value
    if content_type is None or content_type[: len(_STRUCTURED)].lower() != _STRUCTURED:
        return _decode_binary(record)
    if content_type[: len(_BATCH)].lower() == _BATCH:
        return Undecodable(DeadLetterReason.NOT_CLOUDEVENTS, "a batch: one event per record is expected")
    return _decode_structured(record.value)


def _decode_structured(value: bytes | None) -> Event | Undecodable:
    if value is None or not (value.isascii() or _is_text(value)) or (len(value) > _SHALLOW and _too_deep(value)):
        return _not_json()
    try:
        event = _decode_event(value)
    except _DECODING_ERRORS as error:
        return _explain(value, str(error))
    problem = None if _CHECKS[type(event)](event) else _character_problem(event)
    # A backslash is rare in an event, and one byte is found much faster than six.
    if problem is None and _BACKSLASH in value and _NUL in value:
        problem = _nul_problem(event)
    return event if problem is None else Undecodable(DeadLetterReason.INVALID_DATA, problem)


def _decode_binary(record: Record) -> Event | Undecodable:
    attributes = _ce_attributes(record.headers)
    missing = _missing_attribute(attributes)
    if missing is not None:
        return Undecodable(DeadLetterReason.NOT_CLOUDEVENTS, missing)
    value = record.value
    if value is None or not _is_text(value):
        return _not_json()
    members: dict[str, str | msgspec.Raw] = {**attributes}
    try:
        members["data"] = _decode_raw(value)  # one JSON value and nothing after it, so it can be embedded
    except _DECODING_ERRORS:
        return _not_json()
    return _decode_structured(_encode(members))


def _ce_attributes(headers: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """The `ce_` headers that we read, by attribute. Of a repeated header the last counts; one that is null or not
    UTF-8 counts as missing."""
    attributes: dict[str, str] = {}
    for name, value in headers:
        attribute = name[3:].lower()
        if name[:3].lower() != "ce_" or attribute not in _ATTRIBUTES:
            continue
        attributes.pop(attribute, None)
        try:
            if value is not None:  # Kafka allows null, whatever the client's annotation says
                attributes[attribute] = value.decode()
        except UnicodeDecodeError:
            continue
    return attributes


def _missing_attribute(attributes: dict[str, str]) -> str | None:
    if attributes.get("specversion") != "1.0":
        return "specversion is not 1.0"
    needed = _TICK_NEEDS if attributes.get("type") == _TICK_TYPE else _ATTRIBUTES
    return next((f"no {name}" for name in needed if not attributes.get(name)), None)


def _explain(value: bytes, error: str) -> Undecodable:
    """The first reason, in order of precedence, why `value` is no event; `error` is what the typed decode said."""
    try:
        _decode_raw(value)
        members = _decode_members(value)
    except msgspec.ValidationError:
        return Undecodable(DeadLetterReason.NOT_CLOUDEVENTS, "not an object")
    except _DECODING_ERRORS:
        return _not_json()
    attributes = {name: text for name in _ATTRIBUTES if (text := _text(members.get(name))) is not None}
    missing = _missing_attribute(attributes)
    if missing is not None:
        return Undecodable(DeadLetterReason.NOT_CLOUDEVENTS, missing)
    if attributes["type"] not in _TYPES:
        return Undecodable(DeadLetterReason.UNKNOWN_TYPE, _printable(attributes["type"]))
    return Undecodable(DeadLetterReason.INVALID_DATA, _printable(error))


def _text(raw: msgspec.Raw | None) -> str | None:
    try:
        return None if raw is None else _decode_text(raw)
    except _DECODING_ERRORS:
        return None


def _not_json() -> Undecodable:
    return Undecodable(DeadLetterReason.NOT_JSON, f"not UTF-8 JSON of at most {MAX_NESTING} levels")


def _printable(text: str) -> str:
    """At most 200 characters of printable ASCII, whatever a producer wrote."""
    return text[:200].encode("unicode_escape").decode("ascii")[:200]


def _is_text(value: bytes) -> bool:
    """Whether the bytes are UTF-8. msgspec looks only at the strings that it returns."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


_tokens = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL).finditer


def _too_deep(value: bytes) -> bool:
    """Whether JSON nests deeper than MAX_NESTING. Cheap unless it has that many brackets."""
    if value.count(b"{") + value.count(b"[") <= MAX_NESTING:
        return False
    depth = 0
    for token in _tokens(value):
        mark = token.group()
        if mark in (b"{", b"["):
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif mark in (b"}", b"]"):
            depth -= 1
    return False


# --- characters: what the structs leave to us --------------------------------------------------------------


def _call_fits(event: _CallEvent) -> bool:
    data = event.data
    if _is_call(f"{event.subject} {data.call_id} {data.to}") is None:
        return False
    return data.parent_call_id is None or _is_id(data.parent_call_id) is not None


def _message_fits(event: _MessageEvent) -> bool:
    return _is_message(f"{event.subject} {event.data.message_id} {event.data.to}") is not None


def _item_fits(event: ItemCompletedEvent) -> bool:
    return _is_item(f"{event.subject} {event.data.item_id} {event.data.sku}") is not None


_CHECKS: dict[type, Callable[[Any], bool]] = {
    CallStartedEvent: _call_fits,
    CallProgressedEvent: _call_fits,
    CallCompletedEvent: _call_fits,
    MessageAcceptedEvent: _message_fits,
    MessageCompletedEvent: _message_fits,
    ItemCompletedEvent: _item_fits,
    Tick: lambda _: True,
}


def _character_problem(event: Event) -> str:
    """Which member of an event that failed its check has characters that it may not have."""
    subject = getattr(event, "subject", "")
    if _is_id(subject) is None:
        return "subject is not 1 to 64 of A-Z a-z 0-9 . _ : -"
    data = getattr(event, "data", None)
    for name in ("call_id", "message_id", "item_id", "sku", "parent_call_id"):
        value = getattr(data, name, None)
        if value is not None and _is_id(value) is None:
            return f"{name} is not 1 to 64 of A-Z a-z 0-9 . _ : -"
    return "to is not a destination: + and 7 to 15 digits, for messages also short: and 3 to 12 digits"


def _nul_problem(event: Event) -> str | None:
    """Whether one of the free texts that are stored holds a NUL."""
    stored = (event.id, event.source, getattr(getattr(event, "data", None), "from_", ""))
    return "a NUL character" if any("\0" in text for text in stored) else None
