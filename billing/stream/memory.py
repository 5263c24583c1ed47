"""A log in memory, for tests: partitions with holes, retention, truncation and transactions, and a consumer group.

It behaves as the real one does where the runner depends on it: offsets never go back, reading is committed, the end
is the last stable offset, rebalancing is eager, and a member that was thrown out goes on reading until it hears of it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from billing.stream.log import Bounds, Fetched, Listener, LogAway, LogBroken, OutOfRange
from billing.stream.record import Record, StoredRecord

Pair = tuple[str, int]


@dataclass(slots=True)
class _Partition:
    records: list[StoredRecord] = field(default_factory=list)
    start: int = 0
    end: int = 0  # next offset to be written, and the last stable offset unless `open_from` is set
    open_from: int | None = None  # first offset of a transaction that is not decided

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


class MemoryGroup:
    """A consumer group over a MemoryLog: range assignment, eager rebalancing on every join and leave."""

    def __init__(self, log: MemoryLog, partitions: int) -> None:
        self.log = log
        self._partitions = partitions
        self._members: list[MemoryMembership] = []
        self._rebalance = asyncio.Lock()
        self.committed: dict[Pair, int] = {}
        self.generation = 0

    def member(self) -> MemoryMembership:
        """A new membership, to be joined."""
        return MemoryMembership(self)

    async def rebalance(self) -> None:
        """Revoke everything from everyone that listens, then deal the partitions out again."""
        async with self._rebalance:
            members = list(self._members)
            await asyncio.gather(*(member.listener.revoked() for member in members if not member.frozen))
            members = [member for member in members if member in self._members]
            self.generation += 1
            share, extra = divmod(self._partitions, len(members) or 1)
            first = 0
            for number, member in enumerate(members):
                size = share + (number < extra)
                member.give(frozenset(range(first, first + size)))
                first += size

    async def add(self, member: MemoryMembership) -> None:
        self._members.append(member)
        await self.rebalance()

    async def remove(self, member: MemoryMembership) -> None:
        """Leave, or be thrown out (a member that missed its heartbeats)."""
        if member in self._members:
            self._members.remove(member)
            await self.rebalance()


class MemoryMembership:
    """A Membership. `frozen`: the process is stopped and hears nothing of rebalances until it is thawed."""

    def __init__(self, group: MemoryGroup) -> None:
        self._group = group
        self._at: dict[Pair, int] = {}
        self._joining: asyncio.Task[None] | None = None
        self.listener: Listener
        self.frozen = False
        self.broken = False

    async def join(self, listener: Listener) -> None:
        if self._group.log.away:
            raise LogAway("the log is away")
        self.listener = listener
        self._joining = asyncio.create_task(self._group.add(self))

    def give(self, partitions: AbstractSet[int]) -> None:
        """Called by the group with the new generation's share."""
        if not self.frozen:
            self._at = {}
            self.listener.assigned(partitions)

    async def fetch(
        self, partition: int, topics: Sequence[str], *, max_records: int, timeout_ms: int
    ) -> Mapping[str, Fetched]:
        self.check()
        fetched = self._read(partition, topics, max_records)
        if timeout_ms and not any(part.records or part.next_offset != part.from_offset for part in fetched.values()):
            await self._group.log.wait_for_append(timeout_ms / 1000)
            self.check()
            fetched = self._read(partition, topics, max_records)
        for topic, part in fetched.items():
            self._at[topic, partition] = part.next_offset
        return fetched

    def _read(self, partition: int, topics: Sequence[str], limit: int) -> dict[str, Fetched]:
        fetched = {}
        for topic in topics:
            at = self._at[topic, partition]
            bounds = self._bounds(topic, partition)
            if not self._group.log.away and not bounds.start <= at <= bounds.end:
                raise OutOfRange(f"{topic}-{partition} has {bounds}, not {at}")
            records = [] if self._group.log.away else self._group.log.read(topic, partition, at, limit)
            limit -= len(records)
            drained = limit > 0 and not self._group.log.away
            after = bounds.end if drained else records[-1].offset + 1 if records else at
            fetched[topic] = Fetched(at, records, after)
        return fetched

    def _bounds(self, topic: str, partition: int) -> Bounds:
        part = self._group.log._partitions[topic, partition]
        return Bounds(part.start, part.stable_end)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self.check()
        self._at[topic, partition] = offset

    async def commit(self, positions: Mapping[Pair, int]) -> None:
        if self._group.log.away:
            raise LogAway("the log is away")
        self._group.committed.update(positions)

    def check(self) -> None:
        if self.broken:
            raise LogBroken("broken by the test")

    async def leave(self) -> None:
        if self._joining is not None:
            await self._joining
        await self._group.remove(self)
