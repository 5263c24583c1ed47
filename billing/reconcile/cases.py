"""Open findings that the reconciler itself recorded, as it remembers them between two reads of the ledger."""

from __future__ import annotations

import time

from billing.ledger.database import Pool
from billing.ledger.findings import Finding, findings, open_counts
from billing.reconcile import metrics
from billing.reconcile.putting_right import BEHIND, DIFFER, LOST, OF_UNKNOWN, release

REFRESH_S = 5.0
MOST = 10_000


class Cases:
    """By account. Some end by themselves once the books of the account agree again: lost entries, a balance that was
    unknown, a difference whose cause is known. The others wait for a person."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._open: dict[str, Finding] = {}
        self._next_s = 0.0

    def __len__(self) -> int:
        return len(self._open)

    def has(self, account: str) -> bool:
        """Whether there is nothing more to record about it."""
        return account in self._open

    async def refresh(self, *, now: bool = False) -> None:
        """Read them again, now and then. Raises what asyncpg raises."""
        if not now and time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + REFRESH_S
        found: dict[str, Finding] = {}
        for kind in (DIFFER, LOST, BEHIND, *OF_UNKNOWN):
            async for finding in findings(self._pool, only_open=True, kind=kind):
                if finding.account is not None and len(found) < MOST:
                    found[finding.account] = finding
        self._open = found
        metrics.open_findings.clear()
        for kind, count in (await open_counts(self._pool)).items():
            metrics.open_findings.labels(kind).set(count)

    async def agrees(self, account: str) -> bool:
        """The books of an account agree: end its finding where that ends by itself. True when one has ended."""
        case = self._open.get(account)
        if case is None or not (case.kind in (LOST, *OF_UNKNOWN) or (case.kind == DIFFER and case.detail.get("cause"))):
            return False
        del self._open[account]
        return await release(self._pool, case.id, account, case.kind)
