"""The order of dead letter reasons: a record with two faults is given the first (the closed list's order)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
import usage_builders as build

from billing.stream.record import StoredRecord
from billing.usage.ops import DeadLetter
from schemas.reasons import DeadLetterReason as Reason

CLASSIFIER = build.classifier()


class Draft:
    """A sound record of an item, to which faults are added; each fault leaves room for the others."""

    def __init__(self) -> None:
        self.attributes: dict[str, str] = {
            "specversion": "1.0",
            "id": "e-1",
            "source": "switch/1",
            "type": build.ITEM,
            "subject": build.ACCOUNT,
            "time": build.rfc3339(build.NOW_MS),
        }
        self.data: dict[str, Any] = build.item()
        self.value: bytes | None = None
        self.place: dict[str, Any] = {}

    def record(self) -> StoredRecord:
        value = json.dumps(self.data).encode() if self.value is None else self.value
        headers = [(f"ce_{name}", text.encode()) for name, text in self.attributes.items()]
        return build.record(value, headers, **self.place)


def _not_cloudevents(draft: Draft) -> None:
    del draft.attributes["id"]


def _not_json(draft: Draft) -> None:
    draft.value = b"item bought"


def _unknown_type(draft: Draft) -> None:
    draft.attributes["type"] = "usage.item.completed.v9"


def _invalid_data(draft: Draft) -> None:
    draft.data["quantity"] = -1


def _key_mismatch(draft: Draft) -> None:
    draft.place["key"] = b"acct-2"


def _time_in_future(draft: Draft) -> None:
    draft.attributes["time"] = build.rfc3339(build.NOW_MS + 3_600_000)


def _time_too_old(draft: Draft) -> None:
    draft.attributes["time"] = build.rfc3339(build.NOW_MS - 100 * 86_400_000)


def _wrong_partition(draft: Draft) -> None:
    draft.place["partition"] = (build.HOME + 1) % build.PARTITIONS


def _unknown_account(draft: Draft) -> None:
    draft.place["offset"] = 1


def _no_price(draft: Draft) -> None:
    draft.data["sku"] = "unicorn"


def _amount_out_of_range(draft: Draft) -> None:
    draft.data.update(sku="number.dear", quantity=1000)


FAULTS: dict[Reason, Callable[[Draft], None]] = {
    Reason.NOT_CLOUDEVENTS: _not_cloudevents,
    Reason.NOT_JSON: _not_json,
    Reason.UNKNOWN_TYPE: _unknown_type,
    Reason.INVALID_DATA: _invalid_data,
    Reason.KEY_MISMATCH: _key_mismatch,
    Reason.TIME_IN_FUTURE: _time_in_future,
    Reason.TIME_TOO_OLD: _time_too_old,
    Reason.WRONG_PARTITION: _wrong_partition,
    Reason.UNKNOWN_ACCOUNT: _unknown_account,
    Reason.NO_PRICE: _no_price,
    Reason.AMOUNT_OUT_OF_RANGE: _amount_out_of_range,
}
# These exclude each other: one member cannot have both faults.
EXCLUSIVE = {(Reason.TIME_IN_FUTURE, Reason.TIME_TOO_OLD), (Reason.NO_PRICE, Reason.AMOUNT_OUT_OF_RANGE)}


def _reason(*faults: Reason) -> Reason:
    draft = Draft()
    for fault in sorted(faults, key=list(Reason).index, reverse=True):
        FAULTS[fault](draft)
    verdict = CLASSIFIER.classify(draft.record())
    assert isinstance(verdict, DeadLetter)
    return verdict.reason


def test_every_reason_has_a_fault_here() -> None:
    assert list(FAULTS) == list(Reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_each_fault_alone_gives_its_reason(reason: Reason) -> None:
    assert _reason(reason) is reason


@pytest.mark.parametrize(
    ("first", "second"), [pair for pair in itertools.combinations(Reason, 2) if pair not in EXCLUSIVE]
)
def test_of_two_faults_the_first_in_the_list_is_given(first: Reason, second: Reason) -> None:
    assert _reason(first, second) is first


def test_all_faults_at_once_give_the_first() -> None:
    faults = list(Reason)
    while faults:
        assert _reason(*faults) is faults[0]
        faults.pop(0)


def test_two_times_can_be_both_in_the_future_and_too_old() -> None:
    data = build.call(answered_at=build.rfc3339(build.NOW_MS - 100 * 86_400_000))
    event = build.envelope(build.CALL, data, time=build.rfc3339(build.NOW_MS + 3_600_000))
    verdict = CLASSIFIER.classify(build.structured(event))
    assert isinstance(verdict, DeadLetter)
    assert verdict.reason is Reason.TIME_IN_FUTURE


def test_structured_mode_keeps_the_order_inside_the_envelope() -> None:
    event = build.envelope("usage.fax.v1", {"quantity": -1}, id=None)
    reasons = []
    for change in ({}, {"id": "e-1"}, {"type": build.ITEM, "id": "e-1"}):
        verdict = CLASSIFIER.classify(build.structured(event | change, key=b"acct-2"))
        assert isinstance(verdict, DeadLetter)
        reasons.append(verdict.reason)
    assert reasons == [Reason.NOT_CLOUDEVENTS, Reason.UNKNOWN_TYPE, Reason.INVALID_DATA]
