"""How aiokafka 0.14 fetches, where that costs CPU for each record or keeps a lane of a backlog waiting.

Records come out of an answer a batch at a time, into a cheaper struct than its own; a broker is asked again while
records of a backlog wait, for partitions that have more; and where records flow, its answers wait for some to gather.
`install()` replaces names in aiokafka: read its fetcher before a change here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from aiokafka import errors as kafka_errors
from aiokafka.consumer import consumer, fetcher
from aiokafka.structs import TopicPartition

from billing.stream.kafka_decode import ForgivingRecords, KeptRecords

AT_ONCE_BYTES = 128 * 2**10
"""A larger answer is more than one batch of the in-flight consumer."""

FLOWING_SECONDS = 0.015
GATHER_MS = 5
GATHER_BYTES = 64 * 2**10
"""A broker whose last two answers with records were this close together answers next with at least so many bytes, or
after GATHER_MS. At 40,000 records a second it would otherwise answer with each producer's next batch, of one partition
after the other."""


class FetchedRecord(msgspec.Struct, gc=False):
    """A `billing.stream.record.Record`, nothing for the garbage collector to look at."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka is untyped
    """Records of one answer for one partition; `next_fetch_offset` is behind the last that was taken."""

    _records: Any
    next_fetch_offset: int

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._made: list[FetchedRecord] = []  # of the batch in hand, from `_taken` on
        self._taken = 0
        self._behind = self.next_fetch_offset  # where the batch in hand ends

    def take(self, most: int) -> list[FetchedRecord]:
        """Up to `most` records; fewer only where there are no more. Raises CorruptRecordException."""
        found: list[FetchedRecord] = []
        try:
            while len(found) < most and (self._taken < len(self._made) or self._next_batch()):
                part = self._made[self._taken : self._taken + most - len(found)]
                self._taken += len(part)
                found += part
                if self._taken == len(self._made):
                    self.next_fetch_offset = self._behind
                elif part:
                    self.next_fetch_offset = part[-1].offset + 1
        except Exception:
            self._records = KeptRecords(b"")  # what failed is behind the iterator now; nothing may come after it (R9)
            raise
        return found

    @property
    def fetched_bytes(self) -> int:
        """Size of the answer that these records came in."""
        return len(self._records.raw)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to take."""
        return self._taken == len(self._made) and not self._records.has_next()

    def _next_batch(self) -> bool:
        """Make the records of the next batch that is for us; False where there is none. Its offset, not its last
        record's, says where the next fetch begins: compaction may have removed that."""
        while True:
            try:
                if not self._records.has_next():
                    return False
                batch = self._records.next_batch()
                if self._check_crcs and not self._records.intact(batch):
                    raise kafka_errors.CorruptRecordException(f"a batch of {self._tp} does not match its checksum")
                self._made, self._taken = [] if self._passed_over(batch) else self._all_of(batch), 0
            except UnicodeDecodeError:
                self._records = ForgivingRecords(self._records.raw, self.next_fetch_offset)
                continue
            self._behind = max(batch.next_offset, self.next_fetch_offset)
            if self._made:
                return True
            self.next_fetch_offset = self._behind

    def _passed_over(self, batch: Any) -> bool:
        """Whether the batch is a marker, or of a transaction that was aborted."""
        aborted = self._aborted_producers
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                aborted.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in aborted:
                return True
        return bool(batch.is_control_batch)

    def _all_of(self, batch: Any) -> list[FetchedRecord]:
        """The batch's records from `next_fetch_offset` on: a fetch may begin in the middle of a batch."""
        topic, partition = self._tp
        made = [
            FetchedRecord(topic, partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers))
            for each in batch
        ]
        if made and made[0].offset < self.next_fetch_offset:
            return [each for each in made if each.offset >= self.next_fetch_offset]
        return made

    def __iter__(self) -> Iterator[FetchedRecord]:
        return self

    def __next__(self) -> FetchedRecord:
        for each in self.take(1):
            return each
        raise StopIteration


class _FetchResult(fetcher.FetchResult):  # type: ignore[misc]
    _partition_records: _PartitionRecords | None

    def calculate_backoff(self) -> float:
        """How long the broker is asked for nothing while these records wait. aiokafka's answer, up to 100 ms, suits
        what a lane takes at once: the next fetch is then for all partitions. Of a backlog there is more than that."""
        backoff: float = 0.0 if self.large else super().calculate_backoff()
        return backoff

    @property
    def large(self) -> bool:
        """Whether these records are of a backlog."""
        return self._partition_records is not None and self._partition_records.fetched_bytes > AT_ONCE_BYTES

    def getall(self, max_records: int | None = None) -> list[FetchedRecord]:
        if not self.check_assignment(self._topic_partition) or self._partition_records is None:
            return []
        found = self._partition_records.take(2**31 if max_records is None else max_records)
        self._update_position()
        if self._partition_records.exhausted:
            self._partition_records = None
        return found


class _Fetcher(fetcher.Fetcher):  # type: ignore[misc]
    """One request to a broker is under way at a time. In a backlog that must not be a long poll for partitions that
    have nothing, while the lane of another has taken all it had."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._long_poll_ms: int = options["fetch_max_wait_ms"]
        self._fed_at: dict[Any, float] = {}  # by node: monotonic seconds of the last answer with records
        self._flowing: dict[Any, bool] = {}  # by node
        self._asked_idle: dict[Any, float] = {}  # by node: monotonic seconds of the last request for nothing but such

    async def _proc_fetch_request(self, assignment: Any, node: Any, request: Any) -> Any:
        found = await super()._proc_fetch_request(assignment, node, request)
        now = time.monotonic()
        self._flowing[node] = found and now - self._fed_at.get(node, 0.0) < FLOWING_SECONDS
        if found:
            self._fed_at[node] = now
        return found

    def _get_actions_per_node(self, assignment: Any) -> Any:
        requests, resets, timeout, invalid_metadata, resumed = super()._get_actions_per_node(assignment)
        backlog = any(type(found) is _FetchResult and found.large for found in self._records.values())
        for node, request in requests:
            if backlog:
                request._max_wait_ms = 1
            elif self._flowing.get(node):
                request._max_wait_ms, request._min_bytes = GATHER_MS, GATHER_BYTES
        if backlog:
            requests = [request for request in requests if self._worthwhile(assignment, *request)]
            timeout = min(timeout, self._long_poll_ms / 1000)
        return requests, resets, timeout, invalid_metadata, resumed

    def _worthwhile(self, assignment: Any, node: Any, request: Any) -> bool:
        """Whether one of the partitions had more when it answered last, or it is time to look at this node's again."""
        for topic, partitions in request.topics:
            for partition, offset, _ in partitions:
                end = _known_end(assignment.state_value(TopicPartition(topic, partition)))
                if end is None or offset < end:
                    return True
        now = time.monotonic()
        due = now - self._asked_idle.get(node, 0.0) >= self._long_poll_ms / 1000
        if due:
            self._asked_idle[node] = now
        return due


def _known_end(state: Any) -> int | None:
    """Up to where a partition could be read when it answered last; a transaction under way ends it."""
    stable: int | None = state.lso
    return state.highwater if stable is None or stable < 0 else stable


def install() -> None:
    """For every consumer of this process; safe to repeat. Message format 2 only: brokers of today write no other, and
    older formats have no headers."""
    fetcher.MemoryRecords = KeptRecords
    fetcher.PartitionRecords = _PartitionRecords
    fetcher.FetchResult = _FetchResult
    consumer.Fetcher = _Fetcher
