"""A consumer group over a log in memory, for tests: range assignment, eager rebalancing, members that miss it.

A member that was thrown out goes on reading until it hears of it, as a real one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from billing.stream.log import Fetched, Listener, LogAway, LogBroken, OutOfRange
from billing.stream.memory import MemoryLog, Pair


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

    async def wait(self, partition: int, topics: Sequence[str], timeout_ms: int) -> None:
        await self._group.log.wait_for_append(timeout_ms / 1000)

    async def fetch(self, partition: int, topics: Sequence[str], *, max_records: int) -> Mapping[str, Fetched]:
        self.check()
        fetched = self._read(partition, topics, max_records)
        for topic, part in fetched.items():
            self._at[topic, partition] = part.next_offset
        return fetched

    def _read(self, partition: int, topics: Sequence[str], limit: int) -> dict[str, Fetched]:
        fetched = {}
        for topic in topics:
            at = self._at[topic, partition]
            bounds = self._group.log.bounds_now(topic, partition)
            if not self._group.log.away and not bounds.start <= at <= bounds.end:
                raise OutOfRange(f"{topic}-{partition} has {bounds}, not {at}")
            records = [] if self._group.log.away else self._group.log.read(topic, partition, at, limit)
            limit -= len(records)
            drained = limit > 0 and not self._group.log.away
            after = bounds.end if drained else records[-1].offset + 1 if records else at
            fetched[topic] = Fetched(at, records, after)
        return fetched

    def at_hand(self, topic: str, partition: int) -> bool:
        self.check()
        return self._group.log.bounds_now(topic, partition).end != self._at[topic, partition]

    def take(self, topic: str, partition: int, most: int) -> Fetched | None:
        self.check()
        try:
            fetched = self._read(partition, (topic,), most)[topic]
        except OutOfRange:
            return None
        self._at[topic, partition] = fetched.next_offset
        return None if fetched.next_offset == fetched.from_offset else fetched

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self.check()
        self._at[topic, partition] = offset

    def leader(self, topic: str, partition: int) -> object:
        return self._group.log.leader(topic, partition)

    def fetched_to(self, topic: str, partition: int) -> int:
        """The client's own position, which may be ahead of the sink's."""
        return self._at[topic, partition]

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
