"""Findings about payments, refunds and disputes: a person must look before anything else is done about the account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billing.ledger.database import Connection, Pool, fetchrow
from billing.ledger.findings import NewFinding, record
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.recharge.switches import freeze_in


async def report(
    pool: Pool, kind: str, account: str | None, about: str, detail: Mapping[str, Any], *, author: str, reason: str
) -> bool:
    """Record it, once for ever of this kind about `about` (the gateway's id), whoever reports it at the same time; and
    the account is neither charged nor suspended until somebody has looked. False where it was recorded before. Raises
    what asyncpg raises."""
    new = NewFinding(kind, account, subject_kind="payment", subject=about, detail=detail)
    if await fetchrow(pool, query("findings.ever"), kind, new.subject_kind, about) is not None:
        return False  # as most looks find; the findings' lock may be held for long

    async def work(connection: Connection) -> bool:
        if await record(connection, new, ever=True) is None:
            return False
        if account is not None:
            await freeze_in(connection, account, frozen=True, author=author, reason=reason)
        return True

    return await in_transaction(pool, work)
