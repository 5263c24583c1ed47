"""A sink in memory that keeps the protocol honestly, for tests: effects and position change together or not at all.

It is the store, not a client: several runners may share one, as they share a Redis. Faults are set by the test.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from billing.stream.record import Position, Record
from billing.stream.sink import (
    Applied,
    ApplyAnswer,
    Batch,
    Behind,
    CatchUp,
    ClaimAnswer,
    Claimed,
    Fenced,
    Halted,
    Interpretation,
    Owner,
    ReadOnly,
    Refused,
    TendAnswer,
    Tended,
    Unavailable,
    Uninitialised,
)


class Effect(NamedTuple):
    """What a record did: the whole "money" of this sink."""

    topic: str
    partition: int
    offset: int
    value: bytes


@dataclass(slots=True)
class _Partition:
    epoch: int = 0
    nonce: str = ""
    positions: dict[str, Position] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    refusal: Refused | Halted | Uninitialised | None = None
    log_time_ms: int = 0


@dataclass(slots=True)
class Call:
    """One call that reached the store, for tests to look at."""

    name: str
    partition: int
    owner: Owner | None
    answer: str
    caught_up: bool = False
    at_end: bool = False


class MemorySink:
    """Faults: `answers` are given instead of doing anything, one per apply; `lost_replies` applies are done but
    answered Unavailable; `gate`, while clear, keeps calls waiting inside the store."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = tuple(topics)
        self._partitions: defaultdict[int, _Partition] = defaultdict(_Partition)
        self.calls: list[Call] = []
        self.answers: list[ReadOnly | Unavailable] = []
        self.lost_replies = 0
        self.open_holds = False
        self.catch_up_for: Callable[[Batch[Effect]], str | None] = lambda _batch: None
        self.gate = asyncio.Event()
        self.gate.set()

    def effects(self, partition: int) -> list[Effect]:
        """In the order in which they were applied."""
        return self._partitions[partition].effects

    def position(self, topic: str, partition: int) -> Position:
        return self._partitions[partition].positions.get(topic, Position(0, ""))

    def answer_with(self, partition: int, refusal: Refused | Halted | Uninitialised | None) -> None:
        """From now on every call about the partition is answered so; None: as usual again."""
        self._partitions[partition].refusal = refusal

    def count(self, name: str, answer: str) -> int:
        """How many calls were answered so."""
        return sum(call.name == name and call.answer == answer for call in self.calls)

    def rewind(self, topic: str, partition: int, position: Position) -> None:
        """Fail over to a stale replica: effects and position go back together (S05)."""
        part = self._partitions[partition]
        part.positions[topic] = position
        part.effects = [e for e in part.effects if e.topic != topic or e.offset < position.offset]

    # --- Sink -------------------------------------------------------------------------------------------------

    async def claim(self, partition: int, nonce: str) -> ClaimAnswer:
        await self.gate.wait()
        part = self._partitions[partition]
        answer: ClaimAnswer
        if part.refusal is not None:
            answer = part.refusal
        else:
            part.epoch, part.nonce = part.epoch + 1, nonce
            answer = Claimed(Owner(part.epoch, nonce), {t: self.position(t, partition) for t in self._topics})
        self.calls.append(Call("claim", partition, None, type(answer).__name__))
        return answer

    async def apply(self, batch: Batch[Effect]) -> ApplyAnswer:
        await self.gate.wait()
        answer = self._apply(batch)
        if isinstance(answer, Applied) and self.lost_replies:
            self.lost_replies -= 1
            answer = Unavailable("reply lost")
        self.calls.append(Call("apply", batch.partition, batch.owner, type(answer).__name__, batch.caught_up))
        return answer

    def _apply(self, batch: Batch[Effect]) -> ApplyAnswer:
        if self.answers:
            return self.answers.pop(0)
        part = self._partitions[batch.partition]
        if part.refusal is not None:
            return part.refusal
        if (part.epoch, part.nonce) != (batch.owner.epoch, batch.owner.nonce):
            return Fenced()
        position = self.position(batch.topic, batch.partition)
        if position.offset != batch.from_offset:
            return Behind(position)
        wanted = self.catch_up_for(batch)
        if wanted is not None and not batch.caught_up:
            return CatchUp(wanted)
        part.effects += batch.ops
        part.positions[batch.topic] = Position(batch.to_offset, batch.fingerprint)
        part.log_time_ms = max(part.log_time_ms, batch.log_time_ms)
        return Applied(batch.to_offset)

    async def tend(
        self, owner: Owner, partition: int, *, at_end: bool, positions: Mapping[str, Position] | None = None
    ) -> TendAnswer:
        part = self._partitions[partition]
        answer: TendAnswer
        if part.refusal is not None:
            answer = part.refusal
        elif (part.epoch, part.nonce) != (owner.epoch, owner.nonce):
            answer = Fenced()
        else:
            answer = Tended(self.open_holds, {t: self.position(t, partition) for t in self._topics})
        self.calls.append(Call("tend", partition, owner, type(answer).__name__, at_end=at_end))
        return answer

    async def halt(self, owner: Owner, partition: int, reason: str) -> None:
        self._partitions[partition].refusal = Halted(reason)


class Everything:
    """An interpreter: every record is one effect; `takes` limits a batch, `horizon_ms` is what is priced so far:
    a record "at:<ms>" needs a horizon of that time."""

    def __init__(self, *, takes: int = 1_000_000, horizon_ms: int = 2**62) -> None:
        self.takes = takes
        self.horizon_ms = horizon_ms
        self.offered: list[int] = []

    def interpret(self, records: Sequence[Record], before: Record | None = None) -> Interpretation[Effect]:
        self.offered.append(len(records))
        ops: list[Effect] = []
        for record in records[: self.takes]:
            value = record.value or b""
            if value.startswith(b"at:") and int(value[3:]) > self.horizon_ms:
                return Interpretation(ops, len(ops), needs_horizon_ms=int(value[3:]))
            ops.append(Effect(record.topic, record.partition, record.offset, value))
        return Interpretation(ops, len(ops), ends=len(ops) == self.takes)
