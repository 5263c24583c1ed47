"""Dead letters and findings, as they are shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from billing.ledger.database import Pool, fetch
from billing.ledger.queries import query
from schemas.deadletter import DeadLetterRow, base64_text, header_rows
from schemas.reasons import DeadLetterReason

PAGE_SIZE = 500
_headers = msgspec.json.Decoder(list[tuple[str, bytes | None]])


async def dead_letters(
    pool: Pool, *, reason: DeadLetterReason | None = None, page_size: int = PAGE_SIZE
) -> AsyncIterator[DeadLetterRow]:
    """Every dead letter by topic (logical name), partition and offset, read page by page."""
    after: tuple[str, int, int] = ("", -1, -1)
    while True:
        rows = await fetch(pool, query("reads.dead_letters"), *after, page_size, reason and reason.value)
        for row in rows:
            yield _row(row)
        if len(rows) < page_size:
            return
        last = rows[-1]
        after = (last["topic"], last["partition"], last["log_offset"])


async def dead_letter_counts(pool: Pool) -> dict[str, int]:
    """Dead letters per reason."""
    return {row["reason"]: row["records"] for row in await fetch(pool, query("reads.dead_letter_counts"))}


def _row(row: asyncpg.Record) -> DeadLetterRow:
    return DeadLetterRow(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["log_offset"],
        timestamp_ms=row["log_time_ms"],
        reason=DeadLetterReason(row["reason"]),
        detail=row["detail"],
        key_base64=base64_text(row["key"]),
        value_base64=base64_text(row["value"]),
        headers=header_rows(_headers.decode(row["headers"])),
    )


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
