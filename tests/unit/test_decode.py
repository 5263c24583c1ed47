"""Both CloudEvents modes, and the contract of every member (S13: bounds on the way in)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import usage_builders as build

from billing.stream.record import StoredRecord
from billing.usage.decode import MAX_NESTING, Undecodable, decode
from schemas.reasons import DeadLetterReason as Reason
from schemas.usage import CallCompletedEvent, CallStartedEvent, Tick, tick


def _reason(record: StoredRecord) -> Reason | None:
    event = decode(record)
    return event.reason if isinstance(event, Undecodable) else None


def _reasons(type_: str, data: Any, **attributes: Any) -> set[Reason | None]:
    """The reasons that the two modes give."""
    return {_reason(record) for record in build.both_modes(build.envelope(type_, data, **attributes))}


@pytest.mark.parametrize(("type_", "data"), build.EXAMPLES)
def test_every_type_decodes_alike_in_both_modes(type_: str, data: dict[str, Any]) -> None:
    structured, binary = (decode(record) for record in build.both_modes(build.envelope(type_, data)))
    assert not isinstance(structured, Undecodable), structured
    assert structured == binary


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        (b"application/cloudevents+json; charset=UTF-8", True),
        (b"application/cloudevents+json", True),
        (b"application/cloudevents", True),
        (b"APPLICATION/CloudEvents+JSON;charset=utf-8", True),
        (b"application/cloudevents-batch+json", False),
        (b"Application/CloudEvents-Batch+json", False),
        (b"application/json", False),
        (b" application/cloudevents+json", False),
        (b"application/cloudevent", False),
        (b"", False),
        (b"\xff", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE"])
def test_the_content_type_tells_structured_mode_in_any_case(
    name: str, content_type: bytes | None, accepted: bool
) -> None:
    value = json.dumps(build.envelope(build.CALL, build.call())).encode()
    reason = _reason(build.record(value, [(name, content_type)]))
    assert reason is (None if accepted else Reason.NOT_CLOUDEVENTS)


def test_structured_mode_wins_beside_ce_headers() -> None:
    value = json.dumps(build.envelope(build.CALL, build.call())).encode()
    headers = [("ce_id", b"other"), ("ce_type", b"x"), *build.STRUCTURED, ("ce_specversion", b"0.3")]
    event = decode(build.record(value, headers))
    assert isinstance(event, CallCompletedEvent)
    assert event.id == "e-1"


def test_of_a_repeated_header_the_last_counts() -> None:
    record = build.binary(build.envelope(build.CALL, build.call()))
    event = decode(record._replace(headers=(*record.headers, ("CE_ID", b"last"))))
    assert isinstance(event, CallCompletedEvent)
    assert event.id == "last"
    assert _reason(record._replace(headers=(*record.headers, ("ce_id", None)))) is Reason.NOT_CLOUDEVENTS  # type: ignore[arg-type]  # Kafka allows null
    assert _reason(record._replace(headers=(*record.headers, ("ce_id", b"\xff")))) is Reason.NOT_CLOUDEVENTS


@pytest.mark.parametrize("missing", ["specversion", "id", "source", "type", "subject", "time"])
@pytest.mark.parametrize("replacement", [None, ""])
def test_a_missing_or_empty_context_attribute_is_no_cloudevent(missing: str, replacement: str | None) -> None:
    assert _reasons(build.CALL, build.call(), **{missing: replacement}) == {Reason.NOT_CLOUDEVENTS}


@pytest.mark.parametrize("version", ["0.3", "1", "1.0 ", "2.0", 1.1])
def test_another_specversion_is_no_cloudevent(version: object) -> None:
    assert _reasons(build.CALL, build.call(), specversion=version) == {Reason.NOT_CLOUDEVENTS}


@pytest.mark.parametrize("value", [b"[]", b"[{}]", b'"text"', b"5", b"null", b"true", b"{}"])
def test_json_that_is_no_envelope_is_no_cloudevent(value: bytes) -> None:
    assert _reason(build.record(value)) is Reason.NOT_CLOUDEVENTS


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"call ended",
        b"\xef\xbb\xbf{}",
        b'{"a":1}{"b":2}',
        b'{"a":1} x',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":1.}',
        b"[" * 100_000,
        b'{"a":' * 400 + b"1" + b"}" * 400,
    ],
)
def test_what_is_not_utf8_json_is_named_so_in_both_modes(value: bytes | None) -> None:
    binary = build.binary(build.envelope(build.CALL, build.call()))
    assert _reason(build.record(value)) is Reason.NOT_JSON
    assert _reason(binary._replace(value=value)) is Reason.NOT_JSON


def test_binary_data_cannot_smuggle_attributes() -> None:
    """The data is embedded in an envelope; it must be one JSON value."""
    record = build.binary(build.envelope(build.CALL, build.call()))
    data = json.dumps(build.call()).encode()
    assert _reason(record._replace(value=data + b',"subject":"other"')) is Reason.NOT_JSON


def test_nesting_is_limited_by_the_bytes_alone() -> None:
    """How deep a decoder gets depends on the stack that it is called on; a verdict must not."""
    for depth, reason in ((MAX_NESTING - 1, None), (MAX_NESTING, Reason.NOT_JSON)):
        nested: Any = "[{" * 2000
        for _ in range(depth):
            nested = [nested]
        event = build.envelope(build.CALL, build.call(), extra=nested)
        assert {_reason(build.structured(event))} == {reason}


@pytest.mark.parametrize(
    "type_",
    ["usage.call.completed.v2", "usage.call.completed", "usage.fax.completed.v1", "x", "ledger.entry.posted.v1"],
)
def test_an_unknown_type_or_version_is_named_so(type_: str) -> None:
    assert _reasons(type_, build.call()) == {Reason.UNKNOWN_TYPE}


@pytest.mark.parametrize("type_", [5, None, ["usage.call.completed.v1"]])
def test_a_type_that_is_no_text_is_no_cloudevent(type_: object) -> None:
    assert _reason(build.structured({**build.envelope(build.CALL, build.call()), "type": type_})) is (
        Reason.NOT_CLOUDEVENTS
    )


BAD_ID = ["", "x" * 65, "a b", "a/b", "ä", "a\n", "a\u0000", 5]
BAD_COUNT = [-1, 1.5, 60.0, 2**31, 10**30, "60", True, [], 1e300]
BAD_TIME = ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", 1_790_000_000, 1.5]
BAD_TO = ["", "+1", "+123456", "+1234567890123456", "+0123456789", "12025550123", "+1202555012a", "+1 2025550123"]
INVALID: list[tuple[str, Any, str, list[Any]]] = [
    (build.CALL, build.call, "call_id", BAD_ID),
    (build.CALL, build.call, "parent_call_id", BAD_ID),
    (build.CALL, build.call, "direction", ["", "both", "Inbound", 1]),
    (build.CALL, build.call, "from", ["x" * 256, "a\u0000b", 5]),
    (build.CALL, build.call, "to", [*BAD_TO, "+1202555012\n", "short:12345", "anonymous", 5]),
    (build.CALL, build.call, "answered_at", BAD_TIME),
    (build.CALL, build.call, "duration_seconds", BAD_COUNT),
    (build.CALL, build.call, "status", ["", "hung-up", "delivered", "Completed"]),
    (build.STARTED, build.started, "reserve_seconds", BAD_COUNT),
    (build.PROGRESSED, build.progressed, "elapsed_seconds", BAD_COUNT),
    (build.PROGRESSED, build.progressed, "answered_at", BAD_TIME),
    (build.ACCEPTED, build.accepted, "message_id", BAD_ID),
    (build.ACCEPTED, build.accepted, "channel", ["", "rcs", "SMS"]),
    (build.ACCEPTED, build.accepted, "to", [*BAD_TO, "short:", "short:12", "short:1234567890123", "short:12a"]),
    (build.ACCEPTED, build.accepted, "segments", [0, *BAD_COUNT]),
    (build.DELIVERED, build.delivered, "accepted_at", BAD_TIME),
    (build.DELIVERED, build.delivered, "status", ["", "queued", "completed"]),
    (build.ITEM, build.item, "item_id", BAD_ID),
    (build.ITEM, build.item, "sku", BAD_ID),
    (build.ITEM, build.item, "quantity", [0, *BAD_COUNT]),
]


@pytest.mark.parametrize(
    ("type_", "make", "member", "value"),
    [(type_, make, member, value) for type_, make, member, values in INVALID for value in values],
)
def test_s13_a_value_outside_its_contract_is_refused(type_: str, make: Any, member: str, value: Any) -> None:
    assert _reasons(type_, make(**{member: value})) == {Reason.INVALID_DATA}


@pytest.mark.parametrize(
    ("type_", "data", "member"),
    [
        (type_, data, member)
        for type_, data in build.EXAMPLES
        for member in data
        if member not in ("reserve_seconds", "parent_call_id")
    ],
)
def test_a_missing_required_member_is_refused(type_: str, data: dict[str, Any], member: str) -> None:
    without = {name: value for name, value in data.items() if name != member}
    assert _reasons(type_, without) == {Reason.INVALID_DATA}
    assert _reasons(type_, {**data, member: None}) == {Reason.INVALID_DATA}


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_data_must_be_an_object(data: object) -> None:
    event = {**build.envelope(build.CALL, None), "data": data}
    assert {_reason(record) for record in build.both_modes(event)} == {Reason.INVALID_DATA}


def test_data_base64_is_not_read() -> None:
    event = {**build.envelope(build.CALL, None), "data_base64": "e30="}
    assert _reason(build.structured(event)) is Reason.INVALID_DATA


@pytest.mark.parametrize(
    "attributes",
    [
        *({"subject": value} for value in BAD_ID[1:] if isinstance(value, str)),
        *({"time": value} for value in BAD_TIME[1:] if isinstance(value, str)),
        {"id": "x" * 256},
        {"source": "x" * 256},
        {"id": "a\u0000b"},
        {"source": "\u0000"},
    ],
)
def test_a_context_attribute_outside_its_contract_is_refused(attributes: dict[str, str]) -> None:
    assert _reasons(build.CALL, build.call(), **attributes) == {Reason.INVALID_DATA}


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (build.CALL, build.call(call_id="A" * 64, duration_seconds=2**31 - 1)),
        (build.CALL, build.call(call_id="._:-aZ09", duration_seconds=0)),
        (build.CALL, build.call(**{"from": ""})),
        (build.CALL, build.call(**{"from": "anonymous \\ Ä ☎ \U0001f600"})),
        (build.CALL, build.call(**{"from": "\\u0000 as text"})),
        (build.CALL, build.call(to="+1234567")),
        (build.CALL, build.call(to="+123456789012345")),
        (build.CALL, build.call(answered_at="2026-09-21T16:13:20.123456+02:00")),
        (build.CALL, build.call(parent_call_id="p-1")),
        (build.CALL, build.call(unknown={"nested": [1.5, None, 10**400]})),
        (build.STARTED, build.started(reserve_seconds=0)),
        (build.STARTED, build.started(reserve_seconds=2**31 - 1)),
        (build.ACCEPTED, build.accepted(to="short:123", segments=2**31 - 1)),
        (build.ACCEPTED, build.accepted(to="short:123456789012")),
        (build.ITEM, build.item(quantity=2**31 - 1)),
    ],
)
def test_values_at_their_bounds_and_unknown_members_are_fine(type_: str, data: dict[str, Any]) -> None:
    assert _reasons(type_, data) == {None}


def test_optional_members_may_be_null() -> None:
    assert _reasons(build.CALL, {**build.call(), "answered_at": None, "parent_call_id": None}) == {None}
    assert _reasons(build.STARTED, {**build.started(), "reserve_seconds": None}) == {None}


def test_unknown_attributes_and_duplicate_keys_are_fine() -> None:
    value = json.dumps(build.envelope(build.CALL, build.call(), traceparent="00-1")).encode()
    twice = value.replace(b'"source"', b'"source": "first", "source"', 1)
    event = decode(build.record(twice))
    assert isinstance(event, CallCompletedEvent)
    assert event.source == "switch/1"


def test_details_are_short_printable_ascii() -> None:
    for type_ in ("x" * 5000, "a\nb\x1b[31m\u2028é"):
        event = decode(build.structured(build.envelope(type_, {})))
        assert isinstance(event, Undecodable)
        assert len(event.detail) <= 200
        assert event.detail.isascii()
        assert event.detail.isprintable()


def test_ticks_have_neither_subject_nor_data() -> None:
    event = decode(build.record(tick("billing/inflight", "tick-3-17"), key=None))
    assert event == Tick(specversion="1.0", id="tick-3-17", source="billing/inflight")


def test_members_come_out_as_they_went_in() -> None:
    event = decode(build.structured(build.envelope(build.STARTED, build.started(reserve_seconds=120))))
    assert isinstance(event, CallStartedEvent)
    assert (event.subject, event.source, event.data.from_) == (build.ACCOUNT, "switch/1", "+12125550100")
    assert (event.data.to, event.data.reserve_seconds) == ("+12025550123", 120)
