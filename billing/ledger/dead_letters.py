"""Findings, as they are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from billing.ledger.database import Pool, fetch
from billing.ledger.queries import query

PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should look at. For `differing_completion`: the session, the offset of the completion
    that counts, that of the one that says otherwise, and what both say."""

    id: int
    kind: str
    found_at: datetime
    account_id: str | None
    partition: int | None
    session_kind: str | None
    session_id: str | None
    kept_offset: int | None
    refused_offset: int | None
    detail: dict[str, Any] | None


async def findings(pool: Pool, *, page_size: int = PAGE_SIZE) -> AsyncIterator[Finding]:
    """Every finding, in the order in which they were recorded."""
    after = 0
    while True:
        rows = await fetch(pool, query("reads.findings"), after, page_size)
        for row in rows:
            detail = None if row["detail"] is None else msgspec.json.decode(row["detail"])
            yield Finding(**{**row, "detail": detail})
        if len(rows) < page_size:
            return
        after = rows[-1]["id"]
