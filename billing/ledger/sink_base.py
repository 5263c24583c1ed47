"""What every sink in the ledger shares: positions with their owner, refusals, deadlines, retries.

A sink of one topic says what a batch does (`_apply`); everything else about being a sink is here.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import asyncpg

from billing.ledger import metrics
from billing.ledger.database import Connection, Pool, lease
from billing.ledger.migrate import newest_version
from billing.ledger.queries import query
from billing.ledger.trouble import Trouble, describe, trouble_of
from billing.settings import Settings
from billing.stream.record import Position
from billing.stream.sink import (
    ApplyAnswer,
    Batch,
    Behind,
    ClaimAnswer,
    Claimed,
    Fenced,
    Halted,
    Owner,
    ReadOnly,
    Refused,
    TendAnswer,
    Tended,
    Unavailable,
    Waiting,
)

APPLY_DEADLINE_S = 60.0
CLAIM_DEADLINE_S = 10.0
MAX_ATTEMPTS = 5
RETRY_PAUSE_S = 0.02  # doubled each time, with jitter

Answer = TypeVar("Answer")
Op = TypeVar("Op")


class LedgerSink(ABC, Generic[Op]):
    """`billing.stream.sink.Sink` over one topic: `logical` names its positions, `topic` is the deployment's name."""

    def __init__(self, pool: Pool, settings: Settings, *, logical: str, topic: str) -> None:
        self._pool = pool
        self._logical = logical
        self._topic = topic
        self._partitions = settings.partitions
        self._timeline: str | None = None

    @abstractmethod
    async def _apply(self, batch: Batch[Op]) -> ApplyAnswer:
        """The batch's effects and position in one transaction, after `_check`; a retry after an unknown COMMIT meets
        Behind (S26)."""

    async def claim(self, partition: int, nonce: str) -> ClaimAnswer:
        """Raise the partition's epoch and become its owner."""
        return await self._guarded(CLAIM_DEADLINE_S, lambda: self._claim(partition, nonce))

    async def _claim(self, partition: int, nonce: str) -> ClaimAnswer:
        async with lease(self._pool) as connection, connection.transaction():
            meta = await connection.fetchrow(query("sink.meta"))
            refusal = self._refusal(meta)
            if refusal is not None:
                return refusal
            row = await connection.fetchrow(query("sink.claim"), self._logical, partition, nonce)
            if row is None:
                why = await connection.fetchval(query("sink.halted"), self._logical, partition)
                return Halted(why) if why is not None else Refused(f"the ledger has no partition {partition}")
        position = Position(row["next_offset"], row["fingerprint"])
        return Claimed(Owner(row["epoch"], nonce), {self._topic: position})

    def _refusal(self, meta: asyncpg.Record | None) -> Refused | None:
        """Why this build does not fit the ledger, if so; remembers the timeline of the first look."""
        if meta is None or meta["version"] < newest_version():
            return Refused("the ledger is not migrated to this build's schema: run `billing migrate`")
        return self._other_ledger(meta["partitions"], meta["timeline"])

    def _other_ledger(self, partitions: int, timeline: str) -> Refused | None:
        if partitions != self._partitions:
            return Refused(f"the ledger was made for {partitions} partitions, not {self._partitions}")
        if self._timeline is None:
            self._timeline = timeline
        if timeline != self._timeline:
            return Refused(f"the ledger's timeline changed from {self._timeline} to {timeline} (restored?)")
        return None

    async def apply(self, batch: Batch[Op]) -> ApplyAnswer:
        """Apply the batch in one transaction. A retry after an unknown COMMIT meets Behind (S26)."""
        return await self._guarded(APPLY_DEADLINE_S, lambda: self._apply(batch))

    def _check(self, batch: Batch[Op], row: asyncpg.Record | None) -> ApplyAnswer | None:
        """The refusal of a batch, in the fixed order of precedence, or None to go on."""
        if row is None:
            return Refused(f"the ledger has no partition {batch.partition}")
        other = self._other_ledger(row["partitions"], row["timeline"])
        if other is not None:
            return other
        if row["halted"] is not None:
            return Halted(row["halted"])
        if (row["epoch"], row["nonce"]) != (batch.owner.epoch, batch.owner.nonce):
            return Fenced()
        if row["next_offset"] != batch.from_offset:
            return Behind(Position(row["next_offset"], row["fingerprint"]))
        return None

    async def _advance(self, connection: Connection, batch: Batch[Op]) -> None:
        await connection.execute(
            query("sink.advance"),
            *(self._logical, batch.partition, batch.to_offset, batch.fingerprint, batch.log_time_ms),
        )

    async def tend(
        self, owner: Owner, partition: int, *, at_end: bool, positions: Mapping[str, Position] | None = None
    ) -> TendAnswer:
        """Nothing to keep house for."""
        return Tended(open_holds=False)

    async def halt(self, owner: Owner, partition: int, reason: str) -> None:
        """Mark the partition halted, so that later claims see why. Best effort."""

        async def store() -> None:
            async with lease(self._pool) as connection:
                await connection.execute(query("sink.halt"), self._logical, partition, owner.epoch, owner.nonce, reason)

        await self._guarded(CLAIM_DEADLINE_S, store)

    async def _guarded(
        self, deadline_s: float, step: Callable[[], Awaitable[Answer]]
    ) -> Answer | Waiting | Refused | Halted:
        """`step` with a deadline; a lost race is run again, a store that is away is an answer (R11, S27)."""
        pause_s = RETRY_PAUSE_S
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                async with asyncio.timeout(deadline_s):
                    return await step()
            except Exception as error:
                trouble = trouble_of(error)
                if trouble is not Trouble.RETRY or attempt == MAX_ATTEMPTS:
                    answer = _answer(trouble, error)
                    if answer is None:
                        raise
                    return answer
            metrics.apply_retries.inc()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s *= 2
        raise AssertionError("the last attempt answers")


def _answer(trouble: Trouble, error: Exception) -> Waiting | Refused | Halted | None:
    match trouble:
        case Trouble.AWAY | Trouble.RETRY:
            return Unavailable(describe(error))
        case Trouble.READ_ONLY:
            return ReadOnly(describe(error))
        case Trouble.NOT_MIGRATED:
            return Refused(f"the ledger is not migrated: {describe(error)}")
        case Trouble.OVERFLOW:
            return Halted(f"a total does not fit 64 bits: {describe(error)}")
        case Trouble.BUG:
            return None
