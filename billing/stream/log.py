"""What the runner reads from: a log of partitions, and a membership of a consumer group that hands them out.

`billing.stream.kafka` and `billing.stream.kafka_reader` are the real ones, `billing.stream.memory` the ones for tests.
The end of a log is always its last stable offset (consumers read committed).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol

from billing.stream.record import Record


class LogAway(Exception):
    """No answer within the deadline: the caller waits with back-off and asks again."""


class OutOfRange(Exception):
    """The log has no such offset: below its start (retention) or beyond its end (truncated, recreated)."""


class LogBroken(Exception):
    """This client cannot go on (its background work died, it was closed): close it and join again."""


class Bounds(NamedTuple):
    """`start` is the first offset kept, `end` the last stable offset (one past the last readable record)."""

    start: int
    end: int


class Fetched(NamedTuple):
    """Consecutive records of one (topic, partition).

    The client stood at `from_offset` before and stands at `next_offset` now; the difference includes holes
    (transaction markers, aborted transactions, compaction), so it may move without any record.
    """

    from_offset: int
    records: Sequence[Record]
    next_offset: int


class Log(Protocol):
    """The reading side of a membership: what a lane uses."""

    async def wait(self, partition: int, topics: Sequence[str], timeout_ms: int) -> None:
        """Until there is something for `take` or `fetch` to say of one of these topics, or the time is over."""
        ...

    async def fetch(self, partition: int, topics: Sequence[str], *, max_records: int) -> Mapping[str, Fetched]:
        """Up to `max_records` records of these topics together, of what the client has already; an entry for every
        topic. Raises OutOfRange, LogAway, LogBroken. Cancelling loses no record."""
        ...

    def at_hand(self, topic: str, partition: int) -> bool:
        """Whether a fetch of this topic would have something to say, records or an error. No I/O. Raises LogBroken."""
        ...

    def take(self, topic: str, partition: int, most: int) -> Fetched | None:
        """Of what the client has already, up to `most` records, as `fetch` would answer; None where it has nothing, or
        what only `fetch` can say: an error, a rebalance under way. No I/O. Raises LogBroken."""
        ...

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """The next fetch begins at `offset`; what was fetched ahead is dropped. No I/O. Raises LogBroken."""
        ...

    def leader(self, topic: str, partition: int) -> object:
        """Whom the records come from, and over which connection: not equal to what it was when either has changed.
        Only then can a log have been cut (a leader that restarted, or another one). No I/O."""
        ...


class Listener(Protocol):
    """Told about the partitions of a membership; must not call the membership back from inside."""

    async def revoked(self) -> None:
        """Every partition is taken away (rebalancing is eager); comes before each `assigned`. Bounded."""
        ...

    def assigned(self, partitions: AbstractSet[int], torn: AbstractSet[int] = frozenset()) -> None:
        """A new generation: these partition numbers, of all the group's topics, are ours; `torn` ones only of some."""
        ...


class Membership(Log, Protocol):
    """One membership of a consumer group, used once: join, then leave."""

    async def join(self, listener: Listener) -> None:
        """Connect and ask for partitions; the listener hears of them later. Raises LogAway."""
        ...

    async def commit(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Write the group's offsets, for tools that show lag only. Raises LogAway, LogBroken."""
        ...

    def check(self) -> None:
        """Raises LogBroken when the membership has died without telling anyone. No I/O."""
        ...

    async def leave(self) -> None:
        """Leave the group and disconnect, within about 5 s. Never raises."""
        ...


class Reader(Protocol):
    """Reads outside any group, so that the membership's own fetching is not disturbed. All calls have a deadline
    and raise LogAway when it passes."""

    async def partition_count(self, topic: str) -> int | None:
        """None where there is no such topic."""
        ...

    async def bounds(self, topic: str, partition: int) -> Bounds: ...

    async def ends(self, partitions: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], int]: ...

    async def record_at(self, topic: str, partition: int, offset: int) -> Record | None:
        """The record at exactly this offset; None where there is none (any more)."""
        ...
