"""What waits in the ledger, as metrics: rows to publish, dead letters to decide about."""

from __future__ import annotations

import time

from billing.ledger import metrics
from billing.ledger.database import Pool, fetch, fetchrow
from billing.ledger.queries import query

MEASURE_S = 30.0
COUNTED = 100_000  # rows; more are as alarming


class Measures:
    """`step` measures when it is time to."""

    def __init__(self, pool: Pool, *, every_s: float = MEASURE_S) -> None:
        self._pool = pool
        self._every_s = every_s
        self._due_s = 0.0

    async def step(self) -> int:
        """Always 0: there is nothing more to do at once. Raises what asyncpg raises."""
        if time.monotonic() >= self._due_s:
            await self._measure()
            self._due_s = time.monotonic() + self._every_s
        return 0

    async def _measure(self) -> None:
        row = await fetchrow(self._pool, query("relay.waiting"), COUNTED)
        assert row is not None
        for kind in ("entries", "versions"):
            metrics.outbox_waiting.labels(kind).set(row[kind])
            metrics.outbox_oldest_s.labels(kind).set(row[f"{kind}_age_s"] or 0)
        for letters in await fetch(self._pool, query("dead_letters.unresolved")):
            oldest_s = 0.0 if letters["oldest_at"] is None else max(0.0, time.time() - letters["oldest_at"])
            metrics.dead_letters_open.labels(letters["reason"]).set(letters["letters"])
            metrics.dead_letters_oldest_s.labels(letters["reason"]).set(oldest_s)


def forget_measures() -> None:
    """Whoever measures no more must not go on showing what was."""
    for gauge in (
        metrics.outbox_waiting,
        metrics.outbox_oldest_s,
        metrics.dead_letters_open,
        metrics.dead_letters_oldest_s,
    ):
        gauge.clear()
