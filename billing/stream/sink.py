"""The sink protocol: effects and position change in one atomic step (rule R8).

A sink stores, per (topic, partition), its position, and per partition the owner that may write. The runner
(`billing.stream.runner`) owns partitions of one consumer group and drives a sink through these calls only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from billing.stream.record import Position, Record

Op = TypeVar("Op")
OpIn_contra = TypeVar("OpIn_contra", contravariant=True)
OpOut_co = TypeVar("OpOut_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who may write a partition: the sink's epoch, raised by each claim, and the claimant's nonce."""

    epoch: int
    nonce: str


# --- the closed set of answers, in their fixed order of precedence ---------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """The sink and this build do not fit (function version, partition count, timeline): stop the process."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halted:
    """An operator must act; nothing may be applied to the partition (both its topics)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Uninitialised:
    """Balances are unknown (wiped, torn, being rebuilt): wait until a rebuild, then claim again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """A newer owner exists: drop everything in flight and rejoin the group."""


@dataclass(frozen=True, slots=True)
class Behind:
    """`from_offset` was not the sink's position; seek to `position`. Also the answer to a retried batch
    whose first reply was lost (S01)."""

    position: Position


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Nothing was applied: read `topic` to its end first, then apply the same batch with `caught_up=True`."""

    topic: str


@dataclass(frozen=True, slots=True)
class Applied:
    """Effects and position are in; `offset` is the new position."""

    offset: int


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """The store answers but cannot write (replica, OOM, NOREPLICAS): pause and retry with back-off."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No answer, or an unknown outcome: pause and retry the same batch with back-off; positions decide."""

    reason: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """The partition is ours under `owner`; `positions` maps each of the sink's topics to where to go on."""

    owner: Owner
    positions: Mapping[str, Position]


Waiting: TypeAlias = ReadOnly | Unavailable | Uninitialised
ClaimAnswer: TypeAlias = Claimed | Refused | Halted | Waiting
ApplyAnswer: TypeAlias = Applied | Behind | CatchUp | Fenced | Refused | Halted | Waiting


@dataclass(frozen=True, slots=True)
class Tended:
    """Housekeeping done. `open_holds`: the partition has open holds, so log time must go on (ticks). `positions`: where
    the sink stands, per topic; a store that went back (a failover) says so here when no batch comes that would."""

    open_holds: bool
    positions: Mapping[str, Position] = field(default_factory=dict, compare=False)


TendAnswer: TypeAlias = Tended | Fenced | Refused | Halted | Waiting


@dataclass(frozen=True, slots=True)
class Batch(Generic[OpOut_co]):
    """What one `apply` carries. `from_offset` is the position the consumer believes in, not the first
    record's offset; `to_offset` the position afterwards; `fingerprint` that of the last record covered, or
    the unchanged one when the batch only steps over a hole; `log_time_ms` the last record's timestamp, or,
    stepping over a hole, the last one known (0 if none): a sink keeps the greatest it has seen."""

    owner: Owner
    topic: str
    partition: int
    from_offset: int
    to_offset: int
    fingerprint: str
    log_time_ms: int
    ops: Sequence[OpOut_co]
    caught_up: bool = False


class Sink(Protocol[OpIn_contra]):
    """A store that carries its own positions. No method raises for a refusal or a store that is away;
    an exception is a bug. Every method has a deadline of its own (R11)."""

    async def claim(self, partition: int, nonce: str) -> ClaimAnswer:
        """Raise the partition's epoch and become its owner. Called only on a new group generation, and
        again after Uninitialised."""
        ...

    async def apply(self, batch: Batch[OpIn_contra]) -> ApplyAnswer:
        """Apply the batch's effects and advance the position, both or neither."""
        ...

    async def tend(
        self, owner: Owner, partition: int, *, at_end: bool, positions: Mapping[str, Position] | None = None
    ) -> TendAnswer:
        """Fenced housekeeping between batches, about once a second; `at_end`: every topic of the partition
        has been applied to its end just now (only then may leases expire), that is, up to `positions`."""
        ...

    async def halt(self, owner: Owner, partition: int, reason: str) -> None:
        """Mark the partition halted, so that later claims and readers see why. Best effort."""
        ...


# --- from records to operations ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interpretation(Generic[OpOut_co]):
    """What an interpreter made of a run of records of one (topic, partition).

    `taken` records, from the first, are covered by `ops` (a record may yield none). When `taken` is less than
    what was offered, the next record needs a catalogue whose horizon reaches `needs_horizon_ms`, or, where that
    is None, was left for the next batch (for example a batch may not cross a dedupe generation). `ends`: what comes
    next belongs to another batch, whatever it is.
    """

    ops: Sequence[OpOut_co]
    taken: int
    needs_horizon_ms: int | None = None
    ends: bool = False


class Interpreter(Protocol[OpOut_co]):
    """Pure: the same records and catalogue give the same operations. `before` is the last record that the batch has
    already, where these go on with it."""

    def interpret(self, records: Sequence[Record], before: Record | None = None) -> Interpretation[OpOut_co]: ...
