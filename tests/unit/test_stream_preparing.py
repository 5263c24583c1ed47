"""Interpreting in slices is interpreting in one piece, for one lane at a time."""

from __future__ import annotations

import asyncio

import usage_builders as build
from balance_harness import posted
from hypothesis import given
from hypothesis import strategies as st

from billing.balance.entries import EntriesInterpreter
from billing.rating.catalogue import LEAD_MS
from billing.stream.memory_sink import Everything
from billing.stream.preparing import Preparing
from billing.stream.record import StoredRecord
from billing.usage.interpreters import UsageInterpreter
from schemas.ledger import encode_entry

NOW = build.NOW_MS
GOOD = encode_entry(posted("a1", 2, 5), 0)


def _usage(kind: str, offset: int, timestamp: int) -> StoredRecord:
    if kind == "poison":
        return build.record(b"poison", offset=offset)._replace(timestamp=timestamp)
    time_ms = NOW + (kind == "later")  # than the catalogue's horizon
    event = build.envelope(build.ITEM, build.item(), time=build.rfc3339(time_ms))
    return build.structured(event, offset=offset, timestamp=timestamp)


USAGE = st.lists(st.tuples(st.sampled_from(["item"] * 8 + ["poison", "later"]), st.booleans()), max_size=30)
SLICES = st.integers(2, 12)


@given(USAGE, SLICES)
async def test_usage_in_slices_ends_where_a_whole_batch_ends(kinds: list[tuple[str, bool]], slice_records: int) -> None:
    timestamp, records = NOW, []
    for offset, (kind, next_generation) in enumerate(kinds):
        timestamp += 1000 * (next_generation and offset % 7 == 6)
        records.append(_usage(kind, offset, timestamp))
    catalogue = build.catalogue(build.tariff(), build.assignment(), build.heartbeat(NOW - LEAD_MS))
    interpreter = UsageInterpreter(build.classifier_of(catalogue), boundary_ms=1000)
    assert await Preparing(slice_records).interpret(interpreter, records) == interpreter.interpret(records)


@given(st.lists(st.sampled_from([True] * 5 + [False]), min_size=1, max_size=30), SLICES)
async def test_a_malformed_entry_stands_alone_wherever_a_slice_ends(good: list[bool], slice_records: int) -> None:
    records = [StoredRecord("ledger.entries", 0, n, 0, b"a1", GOOD if fine else b"{}") for n, fine in enumerate(good)]
    interpreter = EntriesInterpreter()
    assert await Preparing(slice_records).interpret(interpreter, records) == interpreter.interpret(records)


async def test_lanes_take_turns_and_others_run_after_each_slice() -> None:
    preparing, interpreter = Preparing(10), Everything()
    order: list[str] = []
    records = [StoredRecord("usage", 0, n, 0, None, b"x") for n in range(30)]

    async def lane(name: str) -> None:
        await preparing.interpret(interpreter, records)
        order.append(name)

    async def other() -> None:
        order.append("other")

    await asyncio.gather(lane("first"), lane("second"), other())
    assert order == ["other", "first", "second"]
    assert interpreter.offered == [10] * 6
