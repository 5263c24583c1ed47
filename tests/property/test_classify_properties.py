"""The verdict: total over arbitrary records, the same twice, and the same in both CloudEvents modes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import usage_builders as build
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from billing.money import MAX_MICROS
from billing.rating.tariff import Tariff
from billing.stream.record import StoredRecord
from billing.usage.classify import LedgerClassifier, NeedsHorizon, Verdict
from billing.usage.interpreters import UsageInterpreter
from billing.usage.live import LiveClassifier, live
from billing.usage.ops import Charge, DeadLetter, Hold, Stray

# The machine is shared with real servers: how long an example takes says nothing here.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CLASSIFIER = build.classifier()
LEDGER = LedgerClassifier(build.catalogue(), build.PARTITIONS)
LIVE = LiveClassifier(build.catalogue(), build.PARTITIONS)

# by these no call is out of range, so the ledger works out no hold's amount for one
CHEAP = build.tariff("".join(line + "\n" for line in build.TARIFF.splitlines() if "900" not in line))
CHEAP_CATALOGUE = build.catalogue(CHEAP, build.assignment(), build.heartbeat())
CHEAP_CLASSIFIER = build.classifier_of(CHEAP_CATALOGUE)
CHEAP_LEDGER = LedgerClassifier(CHEAP_CATALOGUE, build.PARTITIONS)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["content-type", "Content-Type", "ce_id", "ce_type", "ce_specversion", "ce_time", "CE_SUBJECT"])
headers = st.lists(
    st.tuples(
        names | st.text(max_size=12),
        st.none() | st.binary(max_size=12) | st.sampled_from([build.STRUCTURED[0][1], b"1.0", build.CALL.encode()]),
    ),
    max_size=8,
)
times = st.integers(-(10**15), 10**15) | st.integers(build.NOW_MS - 10**6, build.NOW_MS + 10**6)


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """A sound event with some of its members changed to anything, or to something nearly right."""
    type_, sound = draw(st.sampled_from(build.EXAMPLES))
    event = build.envelope(type_, dict(sound))
    near = st.sampled_from(["", "acct-1", "short:12345", "+12025550123", 0, 1, 60.0, -1, 2**31, "2026-09-21T14:13:20Z"])
    for target, share in ((event["data"], 3), (event, 1)):
        for name in draw(st.lists(st.sampled_from(sorted(target)), max_size=share, unique=True)):
            target[name] = draw(near | anything)
    if draw(st.booleans()):
        event[draw(st.text(max_size=8))] = draw(anything)
    return event


@st.composite
def records(draw: st.DrawFn) -> StoredRecord:
    """Any record: arbitrary bytes and headers, or a nearly sound event at an arbitrary place."""
    value = draw(
        st.none()
        | st.binary(max_size=60)
        | anything.map(lambda content: json.dumps(content).encode())
        | events().map(lambda event: json.dumps(event).encode())
    )
    return build.record(
        value,
        draw(st.just(build.STRUCTURED) | headers),
        key=draw(st.just(build.ACCOUNT.encode()) | st.none() | st.binary(max_size=8)),
        partition=draw(st.just(build.HOME) | st.integers(0, 7)),
        offset=draw(st.integers(0, 2**63 - 1)),
        timestamp=draw(times),
    )


def _bounded(verdict: Verdict) -> bool:
    if isinstance(verdict, Hold | Charge):
        return 0 <= verdict.amount_micros <= MAX_MICROS
    if isinstance(verdict, DeadLetter):
        return verdict.detail.isascii() and verdict.detail.isprintable() and len(verdict.detail) <= 200
    return verdict is None or isinstance(verdict, Stray | NeedsHorizon)


@unhurried
@given(records())
@example(build.record(b'{"time":"0001-01-01T00:00:00+14:00"}'))
@example(build.structured(build.envelope(build.ITEM, build.item(), time="0001-01-01T00:00:00+14:00")))
@example(build.structured(build.envelope(build.ITEM, build.item(), time="9999-12-31T23:59:59.9999999Z")))
@example(build.structured(build.envelope(build.ITEM, build.item(), time="9999-12-31T23:59:59-23:59")))
@example(build.record(b'{"a":"\\ud800"}'))
@example(build.record(b'{"a":"\\udc00\\ud800","' + b"x" * 600 + b'":[' * 300))
@example(build.record(b'"' + b"\\" * 999 + b"[{" * 999))
def test_every_record_has_a_verdict_the_same_twice(record: StoredRecord) -> None:
    verdict = CLASSIFIER.classify(record)
    assert _bounded(verdict)
    assert CLASSIFIER.classify(record) == verdict
    assert build.classifier().classify(record) == verdict


def _portable(event: dict[str, Any]) -> bool:
    """Whether both modes can carry the event: attributes are non-empty text, and the data is JSON (of a structured
    event that is not JSON the attributes cannot be seen, so the reason may differ)."""
    try:
        json.dumps(event, allow_nan=False)
    except ValueError:
        return False
    attributes = [value for name, value in event.items() if name != "data"]
    return all(isinstance(value, str) and value for value in attributes) and "data" in event


def _comparable(verdict: Verdict) -> Any:
    """Everything but the record, which differs between the modes."""
    return (verdict.reason, verdict.detail) if isinstance(verdict, DeadLetter) else verdict


@unhurried
@given(events().filter(_portable))
def test_both_modes_give_the_same_verdict(event: dict[str, Any]) -> None:
    try:
        structured, binary = build.both_modes(event)
    except UnicodeEncodeError:  # a lone surrogate cannot be a header
        return
    assert _comparable(CLASSIFIER.classify(structured)) == _comparable(CLASSIFIER.classify(binary))


@unhurried
@given(st.lists(records(), max_size=6), st.none() | st.integers(1, 10**6))
def test_r9_batches_cover_every_record_once_in_order(run: list[StoredRecord], boundary_ms: int | None) -> None:
    interpreter = UsageInterpreter(CLASSIFIER, boundary_ms)
    ops: list[Any] = []
    rest = run
    while rest:
        made = interpreter.interpret(rest)
        ops += made.ops
        if made.needs_horizon_ms is not None:
            assert CLASSIFIER.classify(rest[made.taken]) == NeedsHorizon(made.needs_horizon_ms)
            rest = rest[made.taken + 1 :]
            continue
        assert made.taken > 0
        if boundary_ms is not None:
            assert len({record.timestamp // boundary_ms for record in rest[: made.taken]}) == 1
        rest = rest[made.taken :]
    verdicts = [CLASSIFIER.classify(record) for record in run]
    assert ops == [v for v in verdicts if v is not None and not isinstance(v, NeedsHorizon)]


@unhurried
@given(records())
def test_both_consumers_ask_for_the_same(record: StoredRecord) -> None:
    """The balance store is asked for less of a charge, the ledger for nothing of a hold; every verdict is the same."""
    verdict = CLASSIFIER.classify(record)
    assert LEDGER.classify(record) == (None if isinstance(verdict, Hold) else verdict)
    assert LIVE.classify(record) == (live(verdict) if isinstance(verdict, Hold | Charge) else verdict)
    cheap = CHEAP_CLASSIFIER.classify(record)
    assert CHEAP_LEDGER.classify(record) == (None if isinstance(cheap, Hold) else cheap)


@pytest.mark.parametrize(
    ("line", "in_range"),
    [
        ("call,outbound,44,251.65,60,60,,,", True),
        ("call,outbound,44,251.66,60,60,,,", False),  # 2^31 + 899 seconds of it are beyond 2^53 micro-units
        ("call,inbound,44,251.66,60,60,,,", False),
        ("call,outbound,44,0.01,60,60,9006841340,,", True),
        ("call,outbound,44,0.01,60,60,9006841341,,", False),
        ("sms,outbound,44,8000000000,,,,,", True),  # of messages the price is always worked out
    ],
)
def test_r10_calls_are_in_range_where_no_event_can_cost_more(line: str, in_range: bool) -> None:
    tariff = Tariff(build.tariff(build.TARIFF.splitlines()[0] + "\n" + line + "\n"))
    assert tariff.calls_in_range is in_range


def test_the_tariffs_of_these_tests_are_one_of_each() -> None:
    assert Tariff(CHEAP).calls_in_range
    assert not Tariff(build.tariff()).calls_in_range
