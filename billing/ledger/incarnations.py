"""The ledger's identity (timeline), and the incarnations of the balance store that it has minted."""

from __future__ import annotations

from dataclasses import dataclass

from billing.ledger.database import Pool, fetchrow, transaction
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.queries import query


@dataclass(frozen=True, slots=True)
class Incarnation:
    """A build of the balance store, and the timeline of the ledger that it was made from."""

    number: int
    timeline: str


async def timeline(pool: Pool) -> str:
    """The ledger's timeline. Raises LookupError when it is not migrated."""
    row = await fetchrow(pool, query("snapshots.identity"))
    if row is None:
        raise LookupError("the ledger has no timeline: run `billing migrate`")
    found: str = row["timeline"]
    return found


async def current_incarnation(pool: Pool) -> Incarnation | None:
    """The newest, which the balance store must have; None when none was minted."""
    row = await fetchrow(pool, query("snapshots.current"))
    return None if row is None else Incarnation(row["number"], row["timeline"])


async def mint_incarnation(pool: Pool, reason: str) -> Incarnation:
    """A new number, above every earlier one; from now on no other is trusted."""
    row = await fetchrow(pool, query("snapshots.mint"), reason)
    if row is None:
        raise LookupError("the ledger has no timeline: run `billing migrate`")
    return Incarnation(row["number"], row["timeline"])


async def first_incarnation(pool: Pool, reason: str = "first migration") -> Incarnation | None:
    """What `billing migrate` may use: the current incarnation; minted now only for a ledger without entries. None: the
    ledger has entries but no incarnation, so the balance store needs a rebuild."""
    async with transaction(pool) as connection:
        await connection.execute(query("relay.lock_versions"), LOCK_SPACE, Lock.MIGRATE)
        row = await connection.fetchrow(query("snapshots.current"))
        row = row or await connection.fetchrow(query("snapshots.mint_first"), reason)
    return None if row is None else Incarnation(row["number"], row["timeline"])
