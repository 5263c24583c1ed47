"""The ledger as a sink of usage: one batch is one transaction, position included (R8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import asyncpg

from billing.ledger import metrics
from billing.ledger.completions import Sorted, sort_operations, without_nul
from billing.ledger.database import Pool, RollBack, lease
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.recent import RecentSessions
from billing.ledger.settlement import Settlement
from billing.ledger.settling import CurrencySum
from billing.ledger.sink_base import LedgerSink
from billing.settings import Settings
from billing.stream.sink import Applied, ApplyAnswer, Batch
from billing.usage.ops import UsageOp


class PostgresSink(LedgerSink[UsageOp]):
    """`billing.stream.sink.Sink` for UsageOp. Holds are ignored: they are the balance store's business."""

    def __init__(self, pool: Pool, settings: Settings, recent: RecentSessions | None = None) -> None:
        super().__init__(pool, settings, logical=USAGE_TOPIC, topic=settings.topics.usage)
        self._tariffs = settings.topics.tariffs
        self._recent = recent or RecentSessions()

    async def apply(self, batch: Batch[UsageOp]) -> ApplyAnswer:
        """Apply the batch in one transaction."""
        with metrics.apply_seconds.time():
            return await super().apply(batch)

    async def _apply(self, batch: Batch[UsageOp]) -> ApplyAnswer:
        try:
            return await self._settle(batch)
        except asyncpg.UniqueViolationError:
            # a duplicate that was older than we remember
            self._recent.be_careful(batch.partition)
            metrics.late_duplicates.inc()
            return await self._settle(batch)
        except asyncpg.CharacterNotInRepertoireError:
            return await self._settle(replace(batch, ops=without_nul(batch.ops)))

    async def _settle(self, batch: Batch[UsageOp]) -> ApplyAnswer:
        work = sort_operations(batch.ops)
        async with lease(self._pool) as connection:
            try:
                async with connection.transaction():
                    settlement = Settlement(connection, batch, work, self._recent)
                    sums = await settlement.run(self._check, self._tariffs)
            except RollBack as rolled_back:
                answer: ApplyAnswer = rolled_back.answer
                return answer
        self._recent.settled(batch.partition, work.charges)
        _count(work, sums)
        return Applied(batch.to_offset)


def _count(work: Sorted, sums: Sequence[CurrencySum]) -> None:
    """Only after the commit: a batch that is rolled back counts nothing."""
    for total in sums:
        metrics.settled_sessions.inc(total.sessions)
        metrics.settled_micros.labels(total.currency).inc(total.amount_micros)
    if work.equal_duplicates:
        metrics.duplicates.labels("equal").inc(work.equal_duplicates)
    if work.findings:
        metrics.duplicates.labels("differing").inc(len(work.findings))
    for letter in work.dead_letters:
        metrics.dead_letters.labels(letter.reason.value).inc()
