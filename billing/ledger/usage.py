"""Settled usage, as it is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from billing.ledger.database import Pool, fetch
from billing.ledger.queries import query
from billing.ledger.terms import is_id

PAGE_SIZE = 1000
_END = (2**63 - 1, 2**31 - 1, 2**63 - 1)


@dataclass(frozen=True, slots=True)
class SettledUsage:
    """One settled session. `quantity` is seconds, segments or units; times in ms since 1970 UTC; `journal_id` is the
    settlement's entry, None where nothing was charged."""

    kind: str
    session_id: str
    partition: int
    log_offset: int
    log_time_ms: int
    price_time_ms: int
    amount_micros: int
    currency: str
    plan: str
    tariff_version: int
    tariff_kind: str
    direction: str
    destination: str
    origin: str
    quantity: int
    status: str
    matched: str
    journal_id: int | None
    event_id: str
    event_source: str


async def usage_of(pool: Pool, account: str, *, page_size: int = PAGE_SIZE) -> AsyncIterator[SettledUsage]:
    """An account's settled sessions, the newest in the log first, read page by page."""
    below = _END
    while is_id(account):
        rows = await fetch(pool, query("reads.usage"), account, *below, page_size)
        for row in rows:
            yield SettledUsage(**row)
        if len(rows) < page_size:
            return
        last = rows[-1]
        below = (last["log_time_ms"], last["partition"], last["log_offset"])
