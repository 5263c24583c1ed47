"""The background sweep: every account of the ledger, and what the store has beyond them, page by page at a bounded
rate, then again from the beginning."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from billing.balance.reader import BalanceReader
from billing.ledger.database import Connection
from billing.reconcile import metrics
from billing.reconcile.books import beyond_the_ledger, ledger_pages
from billing.reconcile.look import Look, Looker

LEAST_S = 5.0  # between the beginnings of two sweeps
WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class SweepStep:
    """One page. `ended`: it was the last, and this is how many accounts of the sweep compared how."""

    partition: int
    look: Look
    closely: bool
    ended: Mapping[str, int] | None = None


class Sweep:
    """`per_second` accounts at most; time that was not used is not saved up for later."""

    def __init__(
        self, connection: Connection, reader: BalanceReader, looker: Looker, partitions: int, per_second: int
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._looker = looker
        self._partitions = partitions
        self._per_second = per_second
        self._pages: AsyncIterator[SweepStep] | None = None
        self._counts: Counter[str] = Counter()
        self._began_s = 0.0
        self._next_s = 0.0

    async def step(self) -> SweepStep | None:
        """The next page, None when it is not yet time for it. Raises what asyncpg raises."""
        now = time.monotonic()
        if now < self._next_s:
            return None
        if self._pages is None:
            self._pages, self._began_s, self._counts = self._sweep(), now, Counter()
        with suppress(StopAsyncIteration):
            step = await anext(self._pages)
            self._counts.update(type(found.comparison).__name__.lower() for found in step.look.found)
            self._next_s = now + len(step.look.found) / self._per_second
            return step
        return self._end()

    def _end(self) -> SweepStep:
        self._pages = None
        now = time.monotonic()
        self._next_s = max(now, self._began_s + LEAST_S)
        metrics.sweep_seconds.set(now - self._began_s)
        metrics.sweep_at.set(time.time())
        kinds = ("equal", "behind", "missing", "different", "unknown")
        ended = {kind: self._counts[kind] for kind in kinds}
        return SweepStep(0, Look([], 0, None), closely=False, ended=ended)

    async def _sweep(self) -> AsyncIterator[SweepStep]:
        for partition in range(self._partitions):
            known = 0
            async for page in ledger_pages(self._connection, partition):
                look = await self._looker.first(partition, page)
                known += look.known
                yield SweepStep(partition, look, closely=False)
            async for names in beyond_the_ledger(self._connection, self._reader, partition, known):
                if names:
                    look = await self._looker.closer(self._connection, partition, names, time.monotonic() + WAIT_S)
                    yield SweepStep(partition, look, closely=True)
