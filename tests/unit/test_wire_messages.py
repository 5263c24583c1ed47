"""Messages of ledger.entries and billing.tariffs: bytes and back, and what is refused."""

from __future__ import annotations

import json

import pytest
import usage_builders as build

from schemas.catalogue import CatalogueMessage, catalogue_key, decode_catalogue, encode_catalogue
from schemas.common import MAX_MICROS, MalformedMessage, millis, moment
from schemas.deadletter import DeadLetterHeader, base64_text, header_rows
from schemas.ledger import (
    AccountChanged,
    AccountOpened,
    DebitsAcknowledged,
    EntryPosted,
    LedgerEntry,
    ViewCorrected,
    decode_entry,
    encode_entry,
)

OPENED = AccountOpened(
    account="a-1",
    ledger_seq=1,
    timeline="t1",
    currency="USD",
    plan="basic",
    home_partition=3,
    usage_position=42,
    credit_micros=20_000_000,
    credit_limit_micros=0,
    recharge_below_micros=None,
    status="open",
)
CHANGED = AccountChanged(
    account="a-1",
    ledger_seq=2,
    timeline="t1",
    plan="gold",
    credit_limit_micros=5,
    recharge_below_micros=1,
    status="suspended",
)
POSTED = EntryPosted(
    account="a-1",
    ledger_seq=3,
    timeline="t1",
    entry_id="j-9",
    amount_micros=-MAX_MICROS,
    currency="USD",
    origin="adjustment",
    reason="agreed by phone",
)
ACKNOWLEDGED = DebitsAcknowledged(account="a-1", ledger_seq=4, timeline="t1")
CORRECTED = ViewCorrected(
    account="a-1", ledger_seq=5, timeline="t1", finding="7", delta_micros=-9, author="ada", reason="drift"
)


@pytest.mark.parametrize(
    ("entry", "type_"),
    [
        (OPENED, "ledger.account.opened.v1"),
        (CHANGED, "ledger.account.changed.v1"),
        (POSTED, "ledger.entry.posted.v1"),
        (ACKNOWLEDGED, "ledger.debits.acknowledged.v1"),
        (CORRECTED, "ledger.view.corrected.v1"),
    ],
)
def test_entries_travel_as_structured_cloudevents(entry: LedgerEntry, type_: str) -> None:
    value = encode_entry(entry, build.NOW_MS)
    assert decode_entry(value) == entry
    event = json.loads(value)
    assert event["type"] == type_
    assert event["id"] == f"t1:a-1:{entry.ledger_seq}"
    assert (event["specversion"], event["source"], event["subject"]) == ("1.0", "billing/ledger", "a-1")
    assert event["time"].startswith("2026-09-21T14:13:20")


@pytest.mark.parametrize(
    ("message", "type_", "key"),
    [
        (build.tariff(), "catalogue.tariff.v1", b"tariff:basic:1"),
        (build.assignment(), "catalogue.assignment.v1", b"plan:acct-1:1"),
        (build.heartbeat(), "catalogue.heartbeat.v1", b"heartbeat"),
    ],
)
def test_catalogue_messages_travel_with_one_key_per_version(message: CatalogueMessage, type_: str, key: bytes) -> None:
    value = encode_catalogue(message, build.NOW_MS)
    assert decode_catalogue(value) == message
    assert json.loads(value)["type"] == type_
    assert catalogue_key(message) == key


def _entry_with(**changes: object) -> bytes:
    event = json.loads(encode_entry(POSTED, build.NOW_MS))
    event["data"] |= changes
    return json.dumps(event).encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"{",
        b"\xff\xff",
        _entry_with(amount_micros=2**53),
        _entry_with(amount_micros=-(2**53)),
        _entry_with(amount_micros=1.5),
        _entry_with(amount_micros=1.0),
        _entry_with(amount_micros="1"),
        _entry_with(amount_micros=float("nan")),
        _entry_with(amount_micros=True),
        _entry_with(ledger_seq=0),
        _entry_with(account=""),
        _entry_with(account="a b"),
        _entry_with(account="a\n"),
        _entry_with(account="x" * 65),
        _entry_with(currency="usd"),
        _entry_with(origin="usage"),
    ],
)
def test_s13_what_is_no_ledger_entry_is_raised(value: bytes | None) -> None:
    with pytest.raises(MalformedMessage, match=r"^ledger\.entries: "):
        decode_entry(value)


def test_times_are_whole_milliseconds_rounded_down() -> None:
    assert millis(moment(build.NOW_MS)) == build.NOW_MS
    assert millis(moment(build.NOW_MS).replace(microsecond=1999)) == build.NOW_MS - build.NOW_MS % 1000 + 1
    assert millis(moment(-1)) == -1


def test_dead_letters_show_bytes_as_base64_and_null_as_null() -> None:
    assert [base64_text(part) for part in (None, b"", b"\xff\x00")] == [None, "", "/wA="]
    assert header_rows([("a", b"x"), ("a", None)]) == [
        DeadLetterHeader(name="a", value_base64="eA=="),
        DeadLetterHeader(name="a", value_base64=None),
    ]
