"""How aiokafka 0.14 fetches, where that costs CPU for each record or keeps a lane of a backlog waiting.

Records come out of an answer when they are taken, into a cheaper struct than its own; a broker is asked again while
records of a backlog wait, for partitions that have more; and where records flow, its answers wait for some to gather.
`install()` replaces names in aiokafka: read its fetcher before a change here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
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
        self._records_iterator = None  # aiokafka's, which holds us: megabytes would wait for the garbage collector
        self._coming: Iterator[tuple[Any]] | None = None  # of the batch in hand, what was not taken yet
        self._behind = self.next_fetch_offset  # where the batch in hand ends

    def take(self, most: int) -> list[FetchedRecord]:
        """Up to `most` records; fewer only where there are no more. Raises CorruptRecordException."""
        found: list[FetchedRecord] = []
        try:
            while len(found) < most:
                try:
                    if self._coming is None and not self._next_batch():
                        break
                    found += self._made(most - len(found))
                except UnicodeDecodeError:
                    self._records, self._coming = ForgivingRecords(self._records.raw, self.next_fetch_offset), None
        except Exception:
            self._records, self._coming = KeptRecords(b""), None  # nothing may come after what failed (R9)
            raise
        return found

    @property
    def fetched_bytes(self) -> int:
        """Size of the answer that these records came in."""
        return len(self._records.raw)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to take."""
        return self._coming is None and not self._records.has_next()

    def _next_batch(self) -> bool:
        """Take the next batch that is for us in hand; False where there is none. Its offset, not its last record's,
        says where the next fetch begins: compaction may have removed that."""
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not self._records.intact(batch):
                raise kafka_errors.CorruptRecordException(f"a batch of {self._tp} does not match its checksum")
            self._behind = max(batch.next_offset, self.next_fetch_offset)
            if not self._passed_over(batch):
                self._coming = zip(batch)  # a batch cannot be asked for its iterator twice
                return True
            self.next_fetch_offset = self._behind
        return False

    def _made(self, most: int) -> list[FetchedRecord]:
        """Up to `most` records of the batch in hand, made now, from `next_fetch_offset` on: a fetch may begin in the
        middle of a batch."""
        assert self._coming is not None
        topic, partition = self._tp
        made = [
            FetchedRecord(topic, partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers))
            for (each,) in islice(self._coming, most)
        ]
        ended = len(made) < most or made[-1].offset + 1 == self._behind
        if made and made[0].offset < self.next_fetch_offset:
            made = [each for each in made if each.offset >= self.next_fetch_offset]
        if ended:
            self._coming, self.next_fetch_offset = None, self._behind
        elif made:
            self.next_fetch_offset = made[-1].offset + 1
        return made

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

    @property
    def position(self) -> int | None:
        """Where the client stands in this partition, if anywhere."""
        state = self._assignment.state_value(self._topic_partition)
        return state.position if state.has_valid_position else None

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
        self._awaited: dict[Any, asyncio.Future[None]] = {}  # by partition: who waits for something of it

    async def arrival(self, pairs: Sequence[Any], seconds: float) -> None:
        """Until there are records or an error of one of these partitions, or the time is over. aiokafka's own waiters
        wake, all of them, for whatever comes."""
        if any(pair in self._records for pair in pairs):
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        over = loop.call_later(seconds, _wake, waiter)
        self._awaited.update(dict.fromkeys(pairs, waiter))
        try:
            await waiter
        finally:
            over.cancel()
            for pair in pairs:
                if self._awaited.get(pair) is waiter:
                    del self._awaited[pair]

    def take(self, pair: Any, most: int) -> tuple[int, list[FetchedRecord], int] | None:
        """Up to `most` records of a partition that are here already, between the client's positions before and after;
        None where there are none, or where `fetched_records` has an error to raise. What that does for one partition,
        without its waiting."""
        found = self._records.get(pair)
        if type(found) is not _FetchResult or self._subscriptions.reassignment_in_progress:
            return None
        before = found.position
        try:
            records = found.getall(most)
        except kafka_errors.KafkaError as error:
            # without the frames, which have the answer: raised from where it stands, the error is in a cycle with them
            self._records[pair] = fetcher.FetchError(
                error=error.with_traceback(None), backoff=self._prefetch_backoff
            )
            return None
        after = found.position
        if not found.has_more():
            del self._records[pair]
            self._notify(self._wait_consume_future)
        return None if before is None or after is None or before == after else (before, records, after)

    async def _proc_fetch_request(self, assignment: Any, node: Any, request: Any) -> Any:
        found = await super()._proc_fetch_request(assignment, node, request)
        for pair in self._awaited.keys() & self._records.keys():
            _wake(self._awaited.pop(pair))
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


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


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
