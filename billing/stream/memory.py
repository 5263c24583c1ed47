"""A log in memory, for tests: partitions with holes, retention, truncation and transactions.

It behaves as the real one does where the runner depends on it: reading is committed, the end is the last stable
offset, and nobody is told when a log was truncated and grew again.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from billing.stream.log import Bounds, LogAway
from billing.stream.record import Record, StoredRecord

Pair = tuple[str, int]


@dataclass(slots=True)
class _Partition:
    records: list[StoredRecord] = field(default_factory=list)
    start: int = 0
    end: int = 0  # next offset to be written, and the last stable offset unless `open_from` is set
    open_from: int | None = None  # first offset of a transaction that is not decided
    elections: int = 0

    @property
    def stable_end(self) -> int:
        return self.end if self.open_from is None else self.open_from


class MemoryLog:
    """Topics with a number of partitions each; also a Reader. `away` makes every call raise LogAway."""

    def __init__(self, topics: Mapping[str, int]) -> None:
        self._partitions = {(topic, p): _Partition() for topic, n in topics.items() for p in range(n)}
        self._counts = dict(topics)
        self._appended = asyncio.Event()
        self.away = False

    # --- writing ------------------------------------------------------------------------------------------

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes,
        *,
        key: bytes | None = None,
        timestamp_ms: int | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> int:
        """Write one record; answers its offset. Its LogAppendTime is its offset unless given."""
        part = self._partitions[topic, partition]
        offset = part.end
        stamp = offset if timestamp_ms is None else timestamp_ms
        part.records.append(StoredRecord(topic, partition, offset, stamp, key, value, headers))
        part.end += 1
        self._wake()
        return offset

    def hole(self, topic: str, partition: int, size: int = 1) -> None:
        """Offsets without a readable record: an aborted transaction, a transaction marker."""
        self._partitions[topic, partition].end += size
        self._wake()

    def begin(self, topic: str, partition: int) -> None:
        """What is appended from here on cannot be read until `decide`."""
        part = self._partitions[topic, partition]
        part.open_from = part.end

    def decide(self, topic: str, partition: int, *, commit: bool) -> None:
        """End the open transaction; its marker takes one offset."""
        part = self._partitions[topic, partition]
        if part.open_from is not None and not commit:
            del part.records[bisect_left(part.records, part.open_from, key=_offset) :]
        part.open_from = None
        part.end += 1
        self._wake()

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Lose the tail, as an unclean leader election does."""
        part = self._partitions[topic, partition]
        del part.records[bisect_left(part.records, end, key=_offset) :]
        part.end = min(part.end, end)
        part.elections += 1

    def leader(self, topic: str, partition: int) -> object:
        """Changes when the leader does."""
        part = self._partitions[topic, partition]
        return id(part), part.elections

    def retain(self, topic: str, partition: int, start: int) -> None:
        """Retention: remove everything below `start`."""
        part = self._partitions[topic, partition]
        del part.records[: bisect_left(part.records, start, key=_offset)]
        part.start = max(part.start, min(start, part.end))

    def remove(self, topic: str, partition: int, offset: int) -> None:
        """Compaction: remove one record."""
        part = self._partitions[topic, partition]
        part.records = [record for record in part.records if record.offset != offset]

    def recreate(self, topic: str, partitions: int) -> None:
        """Delete the topic and create it again, empty."""
        for partition in range(self._counts[topic]):
            del self._partitions[topic, partition]
        self._counts[topic] = partitions
        self._partitions.update({(topic, partition): _Partition() for partition in range(partitions)})

    # --- reading: Reader ------------------------------------------------------------------------------------

    async def partition_count(self, topic: str) -> int | None:
        self._check_away()
        return self._counts.get(topic)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        self._check_away()
        return self.bounds_now(topic, partition)

    def bounds_now(self, topic: str, partition: int) -> Bounds:
        """Of the partition as it is, away or not."""
        part = self._partitions[topic, partition]
        return Bounds(part.start, part.stable_end)

    async def ends(self, partitions: Collection[Pair]) -> Mapping[Pair, int]:
        self._check_away()
        return {pair: self._partitions[pair].stable_end for pair in partitions}

    async def record_at(self, topic: str, partition: int, offset: int) -> Record | None:
        self._check_away()
        found = self.read(topic, partition, offset, 1)
        return found[0] if found and found[0].offset == offset else None

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[StoredRecord]:
        """Up to `limit` stable records from `offset` on."""
        part = self._partitions[topic, partition]
        first = bisect_left(part.records, offset, key=_offset)
        return [record for record in part.records[first : first + limit] if record.offset < part.stable_end]

    def _check_away(self) -> None:
        if self.away:
            raise LogAway("the log is away")

    async def wait_for_append(self, timeout_seconds: float) -> None:
        """Until something is appended or decided anywhere, or the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._appended.wait()
        except TimeoutError:
            pass

    def _wake(self) -> None:
        self._appended.set()
        self._appended = asyncio.Event()


def _offset(record: StoredRecord) -> int:
    return record.offset
