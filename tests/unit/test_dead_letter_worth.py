"""What a dead letter would have cost, whom it is about, and what a replay would become (S21)."""

from __future__ import annotations

from typing import Any

import pytest
from usage_builders import (
    ACCOUNT,
    CALL,
    HOME,
    ITEM,
    NOW_MS,
    PARTITIONS,
    STARTED,
    assignment,
    both_modes,
    call,
    catalogue,
    envelope,
    heartbeat,
    item,
    record,
    rfc3339,
    started,
    structured,
    tariff,
)

from billing.stream.record import StoredRecord
from billing.usage.subject import subject_of
from billing.usage.worth import Outlook, Worth, outlook_of, worth_of
from schemas.reasons import DeadLetterReason as Reason

DAY_MS = 86_400_000
CATALOGUE = catalogue(tariff(), assignment(), heartbeat(220_000_000_000_000))
PRICED = Worth(1_150_000, "USD", "", ACCOUNT, "item", "i-1")
LOCAL = envelope(ITEM, item())


def worth(found: StoredRecord) -> Worth:
    return worth_of(found, CATALOGUE, PARTITIONS)


def outlook(found: StoredRecord) -> Outlook:
    return outlook_of(found, CATALOGUE, PARTITIONS, NOW_MS + DAY_MS)


@pytest.mark.parametrize(
    ("place", "event", "again"),
    [
        ({"partition": (HOME + 1) % PARTITIONS}, LOCAL, None),  # wrong_partition
        ({"offset": 5}, LOCAL, None),  # unknown_account: it was opened at 100
        ({"timestamp": NOW_MS - 10**6}, LOCAL, None),  # time_in_future, then
        ({"key": b"somebody"}, LOCAL, Reason.KEY_MISMATCH),  # the key stays what it is
        ({}, LOCAL | {"time": rfc3339(NOW_MS - 100 * DAY_MS)}, Reason.TIME_TOO_OLD),
    ],
)
def test_s21_what_can_be_priced_is_in_both_modes_and_a_replay_goes_home(
    place: dict[str, Any], event: dict[str, Any], again: Reason | None
) -> None:
    for found in both_modes(event, **place):
        assert worth(found) == PRICED
        assert outlook(found)[:2] == (HOME, again)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (record(b"\x00"), "not an event: not_json"),
        (record(None, ()), "not an event: not_cloudevents"),
        (structured(envelope("usage.fax.v1", {})), "not an event: unknown_type"),
        (structured(envelope(ITEM, item(quantity=-1))), "not an event: invalid_data"),
        (structured(envelope(ITEM, item(sku="unicorn"))), "no_price: the tariff has no match"),
        (structured(envelope(ITEM, item(sku="number.dear", quantity=9))), "amount_out_of_range: not below"),
        (structured(LOCAL | {"subject": "nobody"}, key=b"nobody"), "unknown_account: its plan"),
    ],
)
def test_s21_what_cannot_be_priced_says_why(found: StoredRecord, why: str) -> None:
    answer = worth(found)
    assert answer.amount_micros is None
    assert answer.why.startswith(why)
    assert outlook(found).reason is not None


def test_s21_what_charges_nothing_by_itself_holds_up_nothing() -> None:
    assert worth(structured(envelope(STARTED, started()))).amount_micros == 0
    unanswered = worth(structured(envelope(CALL, call(status="busy", duration_seconds=0))))
    assert (unanswered.amount_micros, unanswered.session) == (0, "c-1")


@pytest.mark.parametrize(
    ("found", "account"),
    [
        *((found, ACCOUNT) for found in both_modes(LOCAL, key=b"other")),
        (record(b'{"subject":"acct-9"', key=b"acct-7"), "acct-7"),
        (record(b'{"subject":"not an id"}', key=b"acct-7"), "acct-7"),
        (record(b'{"subject":7}', key=b"\xff"), None),
        (record(None, (), key=None), None),
        (record(b"[" * 5000, (("ce_subject", b"acct-3"),), key=b"x" * 65), "acct-3"),
        (record(b"{}", (("CE_Subject", b"\xff"),), key=b"acct-7"), "acct-7"),
    ],
)
def test_whom_a_record_is_about_as_far_as_its_bytes_say(found: StoredRecord, account: str | None) -> None:
    assert subject_of(found) == account
