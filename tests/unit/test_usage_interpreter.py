"""Batches: operations in order, a stop at a missing horizon and at a generation's end."""

from __future__ import annotations

import usage_builders as build

from billing.rating.catalogue import LEAD_MS
from billing.stream.record import StoredRecord
from billing.usage.interpreters import UsageInterpreter
from billing.usage.ops import Charge, DeadLetter, Hold
from schemas.catalogue import encode_catalogue
from schemas.usage import tick

NOW = build.NOW_MS


def _item(offset: int, *, time_ms: int = NOW, timestamp: int = NOW) -> StoredRecord:
    event = build.envelope(build.ITEM, build.item(), time=build.rfc3339(time_ms))
    return build.structured(event, offset=offset, timestamp=timestamp)


def test_operations_come_in_the_records_order_and_ticks_yield_none() -> None:
    records = [
        build.structured(build.envelope(build.STARTED, build.started()), offset=100),
        build.record(tick("x", "t"), key=None, offset=101),
        build.record(b"poison", offset=102),
        _item(103),
    ]
    made = UsageInterpreter(build.classifier()).interpret(records)
    assert [type(op) for op in made.ops] == [Hold, DeadLetter, Charge]
    assert (made.taken, made.needs_horizon_ms) == (4, None)


def test_nothing_gives_nothing() -> None:
    for interpreter in (UsageInterpreter(build.classifier()), UsageInterpreter(build.classifier(), 1000)):
        made = interpreter.interpret([])
        assert (list(made.ops), made.taken, made.needs_horizon_ms) == ([], 0, None)


def test_s47_a_batch_ends_before_the_record_that_needs_a_later_horizon() -> None:
    catalogue = build.catalogue(build.tariff(), build.assignment(), build.heartbeat(NOW - LEAD_MS))
    interpreter = UsageInterpreter(build.classifier_of(catalogue))
    records = [_item(100), _item(101), _item(102, time_ms=NOW + 1), _item(103)]
    made = interpreter.interpret(records)
    assert (len(made.ops), made.taken, made.needs_horizon_ms) == (2, 2, NOW + 1)
    waiting = interpreter.interpret(records[2:])
    assert (len(waiting.ops), waiting.taken, waiting.needs_horizon_ms) == (0, 0, NOW + 1)
    catalogue.apply(encode_catalogue(build.heartbeat(NOW), NOW))
    assert interpreter.interpret(records[2:]).taken == 2


def test_a_batch_never_spans_two_generations_of_log_time() -> None:
    start = NOW - NOW % 1000
    stamps = [start, start + 999, start + 1000, start + 1001, start + 5000]
    records = [_item(100 + n, timestamp=stamp) for n, stamp in enumerate(stamps)]
    interpreter = UsageInterpreter(build.classifier(), boundary_ms=1000)
    taken = []
    while records:
        made = interpreter.interpret(records)
        assert made.needs_horizon_ms is None
        assert len(made.ops) == made.taken
        taken.append(made.taken)
        records = records[made.taken :]
    assert taken == [2, 2, 1]
