"""Messages of billing.signals: bytes and back, what is refused, and the generated schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import msgspec
import pytest
import usage_builders as build

from billing.balance.records import SAFE, AccountRecord
from billing.balance.signals import KINDS, StoredSignal, published
from schemas import generate
from schemas.common import MalformedMessage
from schemas.signals import HoldExpired, SessionCutoff, SessionName, Signal, decode_signal, encode_signal

TYPES = {
    "low": "billing.balance.low.v1",
    "exhausted": "billing.balance.exhausted.v1",
    "restored": "billing.balance.restored.v1",
    "cutoff": "billing.session.cutoff.v1",
    "expired": "billing.hold.expired.v1",
    "suspended": "billing.account.suspended.v1",
    "resumed": "billing.account.resumed.v1",
}
RECORD = AccountRecord("USD", 1_000, 900, 50, 0, 500, 70, 3, 9, "open")
SESSIONS = [SessionName(kind="call", session=f"CA{number}") for number in range(101)]
SCHEMA = jsonschema.Draft202012Validator(json.loads((generate.FOLDER / "billing.signals.json").read_text()))


def stored(kind: Any) -> StoredSignal:
    held = ("m/a-1/SM1", 50) if kind == "expired" else ()
    return StoredSignal.of(kind, "a-1", RECORD, 10, build.NOW_MS, *held)


def signal(kind: Any) -> Signal:
    made = published(stored(kind), 7, "t1", SESSIONS)
    assert made is not None
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_signal_comes_back_as_it_was_and_fits_its_schema(kind: str) -> None:
    made = signal(kind)
    value = encode_signal(made, "t1:7:3:1-0", build.NOW_MS)
    assert decode_signal(value) == made
    event = json.loads(value)
    SCHEMA.validate(event)
    assert (event["type"], event["source"], event["subject"]) == (TYPES[kind], "billing/inflight", "a-1")
    common = {"account", "currency", "incarnation", "timeline", "usage_position", "log_time_ms"}
    assert common <= event["data"].keys()
    if event["type"].startswith("billing.balance."):
        rest = {key: event["data"][key] for key in event["data"].keys() - common}
        assert rest == {
            "level_micros": 170,
            "available_micros": 50,
            "recharge_below_micros": 500,
            "credit_limit_micros": 0,
        }


def test_a_cutoff_names_at_most_a_hundred_and_none_is_made_without_sessions() -> None:
    made = signal("cutoff")
    assert isinstance(made, SessionCutoff)
    assert (made.sessions, made.more) == (SESSIONS[:100], True)
    few = published(stored("cutoff"), 7, "t1", SESSIONS[:100])
    assert isinstance(few, SessionCutoff)
    assert (len(few.sessions), few.more) == (100, False)
    assert published(stored("cutoff"), 7, "t1", []) is None


def test_an_expired_hold_names_its_session() -> None:
    made = signal("expired")
    assert isinstance(made, HoldExpired)
    assert (made.kind, made.session, made.amount_micros) == ("message", "SM1", 50)


@pytest.mark.parametrize(("credit", "level"), [(SAFE - 1, SAFE - 1), (1 - SAFE, 1 - SAFE)])
def test_r10_a_sum_beyond_what_an_amount_may_be_is_shown_as_the_bound(credit: int, level: int) -> None:
    used, excluded = (0, SAFE - 1) if credit > 0 else (SAFE - 1, 0)
    record = msgspec.structs.replace(RECORD, credit=credit, used=used, excluded=excluded)
    assert StoredSignal.of("low", "a-1", record, 0, 0).level_micros == level


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b"\xff",
        json.dumps({"type": "billing.balance.odd.v1"}).encode(),
        encode_signal(signal("low"), "x", 0).replace(b'"account":"a-1"', b'"account":"a 1"'),
        encode_signal(signal("low"), "x", 0).replace(b'"level_micros":170', b'"level_micros":1.5'),
        encode_signal(signal("cutoff"), "x", 0).replace(b'"sessions":[', b'"sessions":[{"kind":"fax","session":"s"},'),
    ],
)
def test_what_is_no_signal_is_refused(value: bytes | None) -> None:
    with pytest.raises(MalformedMessage):
        decode_signal(value)
