"""Records out of fetched bytes: exactly those of aiokafka's own way, whatever is taken at a time."""

from __future__ import annotations

import gc
import struct
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.stream.kafka_decode import KeptRecords
from billing.stream.kafka_fetch import FetchedRecord, _Fetcher, _FetchResult, _PartitionRecords

PLAIN, GZIP = 0, 1
BEFORE_CHECKSUM = 17  # a batch's length and format come before
PAIR = TopicPartition("usage", 3)
THEIRS = _PartitionRecords.__mro__[1]


@st.composite
def logs(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int]], int]:
    """A fetched log with holes between and in batches; what was aborted in it; where the fetch began."""
    raw, offset = bytearray(), draw(st.integers(0, 5))
    first_end = begin = offset
    for _ in range(draw(st.integers(0, 4))):
        producer = draw(st.sampled_from([-1, 7, 8]))
        codec = draw(st.sampled_from([PLAIN, GZIP]))
        builder = DefaultRecordBatchBuilder(2, codec, int(producer > 0), producer, 0, 0, 1 << 20)
        at = 0
        for number in range(draw(st.integers(1, 5))):
            key = draw(st.none() | st.binary(max_size=3))
            headers = [("content-type", b"x")] if draw(st.booleans()) else []
            builder.append(at, 1000 + number, key, b"%d" % (offset + at), headers)
            last = offset + at
            at += draw(st.integers(1, 3))
        batch = bytearray(builder.build())
        struct.pack_into(">q", batch, 0, offset)
        raw += batch
        first_end = first_end if len(raw) > len(batch) else last + 1
        offset += at + draw(st.integers(0, 2))
    aborted = draw(st.lists(st.tuples(st.sampled_from([7, 8]), st.integers(0, 20)), max_size=2))
    # a broker's answer begins with the batch that the fetch begins in
    return bytes(raw), aborted, draw(st.integers(begin, max(begin, first_end - 1)))


def _of(cls: Any, log: tuple[bytes, list[tuple[int, int]], int]) -> Any:
    raw, aborted, begin = log
    return cls(PAIR, KeptRecords(raw), aborted, begin, None, None, True, 1)


@settings(deadline=None)
@given(logs(), st.lists(st.integers(1, 7), min_size=1, max_size=30))
def test_records_and_positions_are_those_of_aiokafka(
    log: tuple[bytes, list[tuple[int, int]], int], takes: list[int]
) -> None:
    theirs = _of(THEIRS, log)
    wanted = [FetchedRecord(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in theirs]
    ours = _of(_PartitionRecords, log)
    found: list[FetchedRecord] = []
    while not ours.exhausted:
        part = ours.take(takes[len(found) % len(takes)])
        found += part
        if part and not ours.exhausted:
            assert part[-1].offset < ours.next_fetch_offset <= next(
                (r.offset for r in wanted if r.offset > part[-1].offset), theirs.next_fetch_offset
            )
    assert found == wanted
    assert ours.next_fetch_offset == theirs.next_fetch_offset
    assert list(_of(_PartitionRecords, log)) == wanted  # one by one


def _batch(offset: int, records: int) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, PLAIN, 0, -1, 0, 0, 1 << 20)
    for at in range(records):
        builder.append(at, 1000, b"k", b"value", [])
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, offset)
    return batch


@pytest.mark.parametrize("most", [2, 5, 9])
def test_an_answer_is_gone_as_soon_as_it_is_let_go(most: int) -> None:
    """It has a megabyte, and little else calls the collector: a backlog took a consumer a gigabyte in ten seconds."""
    ours = _of(_PartitionRecords, (bytes(_batch(0, 3) + _batch(3, 3)), [], 0))
    left = weakref.ref(ours)
    gc.disable()
    try:
        assert len(ours.take(most)) == min(most, 6)
        del ours
        assert left() is None
    finally:
        gc.enable()


@settings(deadline=None)
@given(logs(), st.data())
def test_a_batch_is_intact_where_aiokafka_says_so(
    log: tuple[bytes, list[tuple[int, int]], int], data: st.DataObject
) -> None:
    raw = bytearray(log[0])
    if raw and data.draw(st.booleans()):
        raw[data.draw(st.integers(BEFORE_CHECKSUM, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    records = KeptRecords(bytes(raw))
    try:
        while records.has_next():
            batch = records.next_batch()
            assert records.intact(batch) == batch.validate_crc()
    except CorruptRecordException:  # a later batch's head was hit
        return


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 100])
def test_r9_nothing_comes_after_a_batch_that_does_not_match_its_checksum(at_a_time: int) -> None:
    damaged = _batch(2, 2)
    damaged[-3] ^= 1
    ours = _of(_PartitionRecords, (bytes(_batch(0, 2) + damaged + _batch(4, 2)), [], 0))
    for _ in range(2 // at_a_time):
        assert ours.take(at_a_time)
    with pytest.raises(CorruptRecordException):
        ours.take(at_a_time)
    assert ours.exhausted  # so it is asked for again, from where the consumer stands
    assert (ours.take(at_a_time), ours.next_fetch_offset) == ([], 2)


async def test_r9_r11_a_damaged_batch_is_an_error_that_the_next_fetch_raises() -> None:
    """So it is said, and asked for again after a while: taking it would drop it, and fetch it anew without end."""
    damaged = _batch(0, 2)
    damaged[-3] ^= 1
    state = SimpleNamespace(paused=False, position=0, has_valid_position=True)
    assignment = SimpleNamespace(active=True, state_value=lambda pair: state)
    records = _of(_PartitionRecords, (bytes(damaged), [], 0))
    fetcher = _Fetcher.__new__(_Fetcher)
    fetcher._subscriptions = SimpleNamespace(reassignment_in_progress=False)
    fetcher._prefetch_backoff, fetcher._wait_consume_future, fetcher._closed = 0.1, None, True
    fetcher._records = {PAIR: _FetchResult(PAIR, assignment=assignment, partition_records=records, backoff=0.1)}
    left = weakref.ref(records)
    gc.disable()
    try:
        del records
        assert fetcher.take(PAIR, 10) is None
        with pytest.raises(CorruptRecordException):
            fetcher._records[PAIR].check_raise()
        assert left() is None  # nor does the error keep the answer: each try would leave a megabyte
    finally:
        gc.enable()
    assert fetcher._records[PAIR].calculate_backoff() > 0
    assert state.position == 0


def test_in_a_backlog_every_broker_is_asked_whether_it_has_more() -> None:
    """Else the partitions of one would stand still for as long as a partition of another has records waiting."""
    fetcher = _Fetcher.__new__(_Fetcher)
    fetcher._long_poll_ms, fetcher._asked_idle = 50, {}
    state = SimpleNamespace(highwater=9, lso=5)
    assignment = SimpleNamespace(state_value=lambda pair: state)
    idle, more = (SimpleNamespace(topics=[("usage", [(0, at, 1)])]) for at in (5, 4))
    assert [fetcher._worthwhile(assignment, node, idle) for node in (1, 2, 1, 2)] == [True, True, False, False]
    assert fetcher._worthwhile(assignment, 1, more)
