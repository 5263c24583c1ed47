"""The verdict: holds, charges, strays, waiting for the horizon; bounds of time and place."""

from __future__ import annotations

from typing import Any

import pytest
import usage_builders as build

from billing.rating.catalogue import LEAD_MS
from billing.stream.record import StoredRecord
from billing.usage.classify import FUTURE_MS, TOO_OLD_MS, Classifier, NeedsHorizon, Verdict
from billing.usage.ops import CALL_LEASE_MS, MESSAGE_LEASE_MS, Charge, DeadLetter, Hold, Stray
from billing.usage.partitioner import home_partition
from schemas.reasons import DeadLetterReason as Reason
from schemas.usage import tick

NOW = build.NOW_MS
CLASSIFIER = build.classifier()


def _verdict(type_: str, data: Any, classifier: Classifier = CLASSIFIER, **attributes: Any) -> Verdict:
    return classifier.classify(build.structured(build.envelope(type_, data, **attributes)))


def _reason(verdict: Verdict) -> Reason:
    assert isinstance(verdict, DeadLetter), verdict
    return verdict.reason


def _amount(verdict: Verdict) -> int:
    assert isinstance(verdict, Hold | Charge), verdict
    return verdict.amount_micros


def test_a_completed_call_is_charged_with_all_that_the_books_want() -> None:
    answered = build.rfc3339(NOW - 61_000)
    assert _verdict(build.CALL, build.call(duration_seconds=61, answered_at=answered)) == Charge(
        offset=1000,
        log_time_ms=NOW,
        account=build.ACCOUNT,
        kind="call",
        session="c-1",
        amount_micros=10_000 + 13_200,
        currency="USD",
        plan="basic",
        tariff_version=1,
        price_time_ms=NOW - 61_000,
        tariff_kind="call",
        direction="outbound",
        destination="+12025550123",
        origin="+12125550100",
        quantity=61,
        status="completed",
        matched="1",
        event_id="e-1",
        event_source="switch/1",
    )


def test_a_delivered_message_is_charged() -> None:
    data = build.delivered(segments=3, channel="sms", accepted_at=build.rfc3339(NOW - 1000))
    assert _verdict(build.DELIVERED, data) == Charge(
        offset=1000,
        log_time_ms=NOW,
        account=build.ACCOUNT,
        kind="message",
        session="m-1",
        amount_micros=23_700,
        currency="USD",
        plan="basic",
        tariff_version=1,
        price_time_ms=NOW - 1000,
        tariff_kind="sms",
        direction="outbound",
        destination="+12025550123",
        origin="Shop",
        quantity=3,
        status="delivered",
        matched="1",
        event_id="e-1",
        event_source="switch/1",
    )


def test_an_item_is_charged() -> None:
    assert _verdict(build.ITEM, build.item(quantity=2)) == Charge(
        offset=1000,
        log_time_ms=NOW,
        account=build.ACCOUNT,
        kind="item",
        session="i-1",
        amount_micros=2_300_000,
        currency="USD",
        plan="basic",
        tariff_version=1,
        price_time_ms=NOW,
        tariff_kind="item",
        direction="",
        destination="number.local",
        origin="",
        quantity=2,
        status="completed",
        matched="number.local",
        event_id="e-1",
        event_source="switch/1",
    )


# outbound to North America: 0.0120 a minute, 60/6, connect fee 0.01, at least 0.02
@pytest.mark.parametrize(
    ("type_", "data", "amount", "elapsed"),
    [
        (build.STARTED, build.started(), 22_000, 0),
        (build.STARTED, build.started(reserve_seconds=61), 23_200, 0),
        (build.STARTED, build.started(reserve_seconds=1), 22_000, 0),
        (build.STARTED, build.started(reserve_seconds=0), 0, 0),
        (build.STARTED, build.started(reserve_seconds=900), 190_000, 0),
        (build.STARTED, build.started(reserve_seconds=901), 190_000, 0),
        (build.STARTED, build.started(reserve_seconds=2**31 - 1), 190_000, 0),
        (build.STARTED, build.started(to="+8005550123"), 0, 0),
        (build.PROGRESSED, build.progressed(elapsed_seconds=60), 34_000, 60),
        (build.PROGRESSED, build.progressed(elapsed_seconds=61, reserve_seconds=0), 23_200, 61),
        (build.PROGRESSED, build.progressed(elapsed_seconds=0), 22_000, 0),
    ],
)
def test_calls_hold_the_price_of_elapsed_and_reserve(
    type_: str, data: dict[str, Any], amount: int, elapsed: int
) -> None:
    assert _verdict(type_, data) == Hold(1000, NOW, build.ACCOUNT, "call", "c-1", amount, elapsed, CALL_LEASE_MS)


def test_messages_hold_the_price_of_their_segments() -> None:
    assert _verdict(build.ACCEPTED, build.accepted(segments=2, to="short:12345")) == Hold(
        1000, NOW, build.ACCOUNT, "message", "m-1", 1_000_000, 0, MESSAGE_LEASE_MS
    )


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled"])
@pytest.mark.parametrize("to", ["+12025550123", "+8821234567"])
def test_calls_of_another_final_status_settle_for_nothing_and_need_no_price(status: str, to: str) -> None:
    verdict = _verdict(build.CALL, build.call(status=status, to=to, duration_seconds=30))
    assert isinstance(verdict, Charge)
    assert (verdict.amount_micros, verdict.matched, verdict.quantity, verdict.status) == (0, "", 30, status)
    assert (verdict.currency, verdict.plan, verdict.tariff_version) == ("USD", "basic", 1)


def test_a_completed_call_of_no_duration_costs_nothing_but_needs_a_price() -> None:
    verdict = _verdict(build.CALL, build.call(duration_seconds=0))
    assert isinstance(verdict, Charge)
    assert (verdict.amount_micros, verdict.matched) == (0, "1")
    assert _reason(_verdict(build.CALL, build.call(duration_seconds=0, to="+8821234567"))) is Reason.NO_PRICE


@pytest.mark.parametrize(
    ("status", "amount"), [("sent", 7_900), ("delivered", 7_900), ("undelivered", 7_900), ("failed", 0)]
)
def test_all_message_states_but_failed_are_charged(status: str, amount: int) -> None:
    assert _amount(_verdict(build.DELIVERED, build.delivered(status=status))) == amount


def test_a_failed_message_needs_no_price() -> None:
    assert _amount(_verdict(build.DELIVERED, build.delivered(status="failed", to="+8821234567"))) == 0


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (build.CALL, build.call(to="+8821234567")),
        (build.CALL, build.call(to="+4915112345678", direction="inbound")),
        (build.STARTED, build.started(to="+8821234567")),
        (build.PROGRESSED, build.progressed(to="+8821234567")),
        (build.ACCEPTED, build.accepted(to="short:99999")),
        (build.ACCEPTED, build.accepted(channel="mms", to="+4915112345678")),
        (build.DELIVERED, build.delivered(to="+8821234567")),
        (build.ITEM, build.item(sku="unicorn")),
        (build.ITEM, build.item(sku="number")),
    ],
)
def test_a_missing_match_is_a_dead_letter_never_free(type_: str, data: dict[str, Any]) -> None:
    assert _reason(_verdict(type_, data)) is Reason.NO_PRICE


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (build.CALL, build.call(to="+97912345678", duration_seconds=120)),
        (build.STARTED, build.started(to="+97912345678", reserve_seconds=120)),
        (build.PROGRESSED, build.progressed(to="+97912345678", elapsed_seconds=120)),
        (build.ITEM, build.item(sku="number.dear", quantity=2)),
    ],
)
def test_s13_a_price_of_2_to_the_53_or_more_is_refused(type_: str, data: dict[str, Any]) -> None:
    assert _reason(_verdict(type_, data)) is Reason.AMOUNT_OUT_OF_RANGE


def test_the_largest_price_below_2_to_the_53_is_charged() -> None:
    assert _amount(_verdict(build.ITEM, build.item(sku="number.dear"))) == 9_000_000_000_000_000


def test_s13_dear_messages_are_refused_too() -> None:
    dear = build.classifier(build.tariff("sms,outbound,1,9000000000,,,,,\n"), build.assignment(), build.heartbeat())
    for type_, data in ((build.ACCEPTED, build.accepted(segments=2)), (build.DELIVERED, build.delivered(segments=2))):
        assert _reason(_verdict(type_, data, dear)) is Reason.AMOUNT_OUT_OF_RANGE


@pytest.mark.parametrize("key", [None, b"", b"acct-2", b"acct-1 ", b"ACCT-1", b"\xff", b'"acct-1"'])
def test_the_key_must_be_the_subject(key: bytes | None) -> None:
    record = build.structured(build.envelope(build.CALL, build.call()), key=key)
    assert _reason(CLASSIFIER.classify(record)) is Reason.KEY_MISMATCH


TIMES = [
    (FUTURE_MS, None),
    (FUTURE_MS + 1, Reason.TIME_IN_FUTURE),
    (-TOO_OLD_MS, None),
    (-TOO_OLD_MS - 1, Reason.TIME_TOO_OLD),
]


@pytest.mark.parametrize(("late_ms", "reason"), TIMES)
@pytest.mark.parametrize(
    ("type_", "make", "member"),
    [
        (build.ITEM, build.item, None),
        (build.CALL, build.call, "answered_at"),
        (build.PROGRESSED, build.progressed, "answered_at"),
        (build.DELIVERED, build.delivered, "accepted_at"),
    ],
)
def test_s38_times_are_judged_by_the_logs_time_alone(
    type_: str, make: Any, member: str | None, late_ms: int, reason: Reason | None
) -> None:
    time = build.rfc3339(NOW + late_ms)
    verdict = _verdict(type_, make(), time=time) if member is None else _verdict(type_, make(**{member: time}))
    assert (verdict.reason if isinstance(verdict, DeadLetter) else None) is reason


def test_usage_belongs_into_the_home_partition() -> None:
    event = build.envelope(build.CALL, build.call())
    for partition in range(build.PARTITIONS):
        verdict = CLASSIFIER.classify(build.structured(event, partition=partition))
        if partition == build.HOME:
            assert isinstance(verdict, Charge)
        else:
            assert _reason(verdict) is Reason.WRONG_PARTITION


def test_s46_usage_below_where_the_account_was_opened_is_unknown_account() -> None:
    event = build.envelope(build.CALL, build.call())
    assert _reason(CLASSIFIER.classify(build.structured(event, offset=99))) is Reason.UNKNOWN_ACCOUNT
    assert isinstance(CLASSIFIER.classify(build.structured(event, offset=100)), Charge)


def test_s46_usage_of_an_unlisted_account_is_a_stray_in_its_partition() -> None:
    home = home_partition("new", build.PARTITIONS)
    event = build.envelope(build.CALL, build.call(), subject="new")
    record = build.structured(event, key=b"new", partition=home, offset=7)
    assert CLASSIFIER.classify(record) == Stray(record, "new", 7)
    elsewhere = record._replace(partition=(home + 1) % build.PARTITIONS)
    assert _reason(CLASSIFIER.classify(elsewhere)) is Reason.WRONG_PARTITION


def test_s46_a_stray_needs_no_horizon() -> None:
    home = home_partition("new", build.PARTITIONS)
    event = build.envelope(build.CALL, build.call(), subject="new")
    record = build.structured(event, key=b"new", partition=home)
    assert isinstance(build.classifier(build.tariff()).classify(record), Stray)


def test_s47_a_price_time_beyond_the_horizon_waits() -> None:
    late = build.rfc3339(NOW + FUTURE_MS)
    behind = build.classifier(build.tariff(), build.assignment(), build.heartbeat(NOW + FUTURE_MS - LEAD_MS - 1))
    there = build.classifier(build.tariff(), build.assignment(), build.heartbeat(NOW + FUTURE_MS - LEAD_MS))
    assert _verdict(build.ITEM, build.item(), behind, time=late) == NeedsHorizon(NOW + FUTURE_MS)
    assert isinstance(_verdict(build.ITEM, build.item(), there, time=late), Charge)
    # what counts is the price time, not the event's
    answered = build.call(answered_at=build.rfc3339(NOW))
    assert isinstance(_verdict(build.CALL, answered, behind, time=late), Charge)


def test_s47_before_the_first_heartbeat_everything_priced_waits() -> None:
    blind = build.classifier(build.tariff(), build.assignment())
    assert _verdict(build.ITEM, build.item(), blind) == NeedsHorizon(NOW)
    assert _verdict(build.CALL, build.call(status="busy"), blind) == NeedsHorizon(NOW)


def test_s41_the_price_of_the_start_time_applies() -> None:
    changed = build.classifier(
        build.tariff(),
        build.tariff("call,outbound,1,1,,,,,\n", version=2, effective_ms=NOW - 1000),
        build.assignment(),
        build.heartbeat(),
    )
    for answered_ms, amount, version in ((NOW - 1001, 22_000, 1), (NOW - 1000, 1_000_000, 2)):
        verdict = _verdict(build.CALL, build.call(answered_at=build.rfc3339(answered_ms)), changed)
        assert isinstance(verdict, Charge)
        assert (verdict.amount_micros, verdict.tariff_version) == (amount, version)
        hold = _verdict(build.PROGRESSED, build.progressed(0, answered_at=build.rfc3339(answered_ms)), changed)
        assert _amount(hold) == amount
    assert _amount(_verdict(build.STARTED, build.started(), changed)) == 1_000_000


def test_ticks_mean_nothing_wherever_they_are() -> None:
    record = build.record(tick("billing/inflight", "t-1"), key=None, partition=99, offset=0)
    assert CLASSIFIER.classify(record) is None


def test_s22_completed_is_self_sufficient() -> None:
    """The charge is the same whatever came before: classify knows nothing of other records."""
    records = [build.structured(build.envelope(type_, data), offset=n + 100) for n, (type_, data) in enumerate(ORDER)]
    alone = CLASSIFIER.classify(records[-1])
    for record in records[:-1]:
        CLASSIFIER.classify(record)
    assert CLASSIFIER.classify(records[-1]) == alone
    assert isinstance(alone, Charge)


ORDER = [(build.STARTED, build.started()), (build.PROGRESSED, build.progressed()), (build.CALL, build.call())]


def test_r9_dead_letters_keep_the_record_itself() -> None:
    record = StoredRecord("usage.events", 3, 5, NOW, b"\x00", b"\xff\xfe", (("x", b"\x01"),))
    verdict = CLASSIFIER.classify(record)
    assert isinstance(verdict, DeadLetter)
    assert verdict.record is record
