"""Preparing a batch piece by piece is interpreting it as one, for one lane at a time."""

from __future__ import annotations

import asyncio

import usage_builders as build
from balance_harness import posted
from hypothesis import given
from hypothesis import strategies as st

from billing.balance.entries import EntriesInterpreter
from billing.rating.catalogue import LEAD_MS
from billing.stream.log import Fetched
from billing.stream.memory_sink import Everything
from billing.stream.preparing import Prepared, Preparing
from billing.stream.record import StoredRecord
from billing.stream.sink import Interpreter, Op
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


async def _prepared(
    interpreter: Interpreter[Op], records: list[StoredRecord], pieces: list[int], most: int = 99
) -> Prepared[Op]:
    """A batch of `records`, which come in pieces of these sizes, then one by one."""
    sizes = iter(pieces)

    def more(from_offset: int, limit: int) -> Fetched | None:
        found = records[from_offset : from_offset + min(next(sizes, 1), limit)]
        return Fetched(from_offset, found, from_offset + len(found)) if found else None

    first = more(0, most) or Fetched(0, (), 0)
    return await Preparing().prepare(interpreter, first, more, most)


def _like_one_piece(prepared: Prepared[Op], interpreter: Interpreter[Op], records: list[StoredRecord]) -> None:
    whole = interpreter.interpret(records)
    assert (prepared.ops, prepared.taken) == (list(whole.ops), whole.taken)
    assert prepared.needs_horizon_ms == whole.needs_horizon_ms
    assert prepared.next_offset == whole.taken
    assert prepared.last == (records[whole.taken - 1] if whole.taken else None)
    left = prepared.left
    assert left is None or (left.from_offset, left.records[0]) == (whole.taken, records[whole.taken])


USAGE = st.lists(st.tuples(st.sampled_from(["item"] * 8 + ["poison", "later"]), st.booleans()), max_size=30)
PIECES = st.lists(st.integers(1, 12), max_size=8)


@given(USAGE, PIECES)
async def test_usage_in_pieces_ends_where_a_whole_batch_ends(kinds: list[tuple[str, bool]], pieces: list[int]) -> None:
    timestamp, records = NOW, []
    for offset, (kind, next_generation) in enumerate(kinds):
        timestamp += 1000 * (next_generation and offset % 7 == 6)
        records.append(_usage(kind, offset, timestamp))
    catalogue = build.catalogue(build.tariff(), build.assignment(), build.heartbeat(NOW - LEAD_MS))
    interpreter = UsageInterpreter(build.classifier_of(catalogue), boundary_ms=1000)
    _like_one_piece(await _prepared(interpreter, records, pieces), interpreter, records)


@given(st.lists(st.sampled_from([True] * 5 + [False]), min_size=1, max_size=30), PIECES)
async def test_a_malformed_entry_stands_alone_wherever_a_piece_ends(good: list[bool], pieces: list[int]) -> None:
    records = [StoredRecord("ledger.entries", 0, n, 0, b"a1", GOOD if fine else b"{}") for n, fine in enumerate(good)]
    interpreter = EntriesInterpreter()
    _like_one_piece(await _prepared(interpreter, records, pieces), interpreter, records)


@given(st.lists(st.integers(0, 12), max_size=12), st.integers(1, 40))
async def test_a_batch_has_no_more_than_it_may_and_every_hole_before_its_end(holes: list[int], most: int) -> None:
    """Pieces of 7 records, each with a hole behind it; what comes first may be a hole alone."""
    pieces, at = [], 0
    for hole in holes:
        size = 7 if hole % 3 else 0
        records = [StoredRecord("usage", 0, at + n, 0, None, b"x") for n in range(size)]
        pieces.append(Fetched(at, records, at + size + hole))
        at += size + hole
    given = iter(pieces)
    limits: list[int] = []

    def more(from_offset: int, limit: int) -> Fetched | None:
        limits.append(limit)
        piece = next(given, None)
        if piece is None or not piece.records or limit >= 7:
            return piece
        return Fetched(piece.from_offset, piece.records[:limit], piece.records[limit - 1].offset + 1)

    first = next(given, Fetched(0, (), 0))
    prepared = await Preparing(10).prepare(Everything(), first, more, most)
    assert all(0 < limit <= 10 for limit in limits)
    assert len(prepared.ops) == prepared.taken <= most
    if len(first.records) > most:  # what it has beyond the batch is left for another
        assert prepared.taken == most
        assert prepared.left == Fetched(prepared.next_offset, first.records[most:], first.next_offset)
        assert not limits
        return
    assert prepared.left is None
    if prepared.taken < most:
        assert prepared.next_offset == at


async def test_lanes_take_turns_and_others_run_after_each_piece() -> None:
    interpreter = Everything()
    preparing = Preparing(10)
    order: list[str] = []
    records = [StoredRecord("usage", 0, n, 0, None, b"x") for n in range(30)]

    async def lane(name: str) -> None:
        def more(from_offset: int, limit: int) -> Fetched | None:
            found = records[from_offset : from_offset + limit]
            return Fetched(from_offset, found, from_offset + len(found)) if found else None

        await preparing.prepare(interpreter, Fetched(0, records[:10], 10), more, 30)
        order.append(name)

    async def other() -> None:
        order.append("other")

    await asyncio.gather(lane("first"), lane("second"), other())
    assert order == ["other", "first", "second"]
    assert interpreter.offered == [10] * 6
