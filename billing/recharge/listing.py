"""What was charged, and why or why not, for people."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from billing.ledger.accounts import Account, show
from billing.ledger.database import Pool, fetch
from billing.ledger.queries import query
from billing.recharge import intents, records
from billing.recharge.intents import StoredIntent
from billing.recharge.records import Evaluation

PAGE_SIZE = 500
_NEWEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """The evaluations of an account, or of one recharge of it, the latest first."""

    account: str
    currency: str
    evaluations: list[Evaluation]


async def recharges(
    pool: Pool, account: str | None = None, *, page_size: int = PAGE_SIZE
) -> AsyncIterator[StoredIntent]:
    """Every intent, newest first, of one account or of all; read page by page."""
    below = _NEWEST
    while True:
        rows = await fetch(pool, query("recharge_reads.intents"), account, below, page_size)
        for row in rows:
            yield intents.from_row(row)
        if len(rows) < page_size:
            return
        below = rows[-1]["id"]


async def explanation(pool: Pool, ident: str, limit: int) -> Explanation | None:
    """Of the account `ident`, or, where there is none, of the recharge of that number; None: neither."""
    account = await show(pool, ident)
    if isinstance(account, Account):
        return Explanation(account.id, account.currency, await records.of_account(pool, account.id, limit))
    stored = await intents.find(pool, int(ident)) if re.fullmatch(r"[0-9]{1,18}", ident) else None
    if stored is None:
        return None
    return Explanation(stored.account, stored.currency, await records.of_intent(pool, stored.id, limit))
