"""Incarnations of the balance store: numbers minted here, one for each time that it is filled from the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from billing.ledger.database import Connection
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.queries import query


@dataclass(frozen=True, slots=True)
class Identity:
    """What the balance store must agree with. `incarnation` is None before the first was minted. `moving_to`: the
    number of partitions that a migration under way goes to."""

    timeline: str
    partitions: int
    incarnation: int | None
    moving_to: int | None = None


async def read_identity(connection: Connection) -> Identity | None:
    """The ledger's identity; None where `billing migrate` has not finished. Raises what asyncpg raises when tables
    are missing or the ledger is away."""
    row = await connection.fetchrow(query("reconcile.identity"))
    return None if row is None else Identity(row["timeline"], row["partitions"], row["incarnation"], row["moving_to"])


async def mint_incarnation(connection: Connection, *, above: int, reason: str) -> int:
    """A number that no balance store of this ledger has had, greater than `above` (the newest that the store has
    seen: it may come from elsewhere)."""
    number: int = await connection.fetchval(query("reconcile.mint_incarnation"), above, reason)
    return number


async def first_incarnation(connection: Connection) -> Identity | None:
    """What `billing migrate` may go by: the ledger's identity, its first incarnation minted now where the ledger has
    neither an incarnation nor an entry. None: not migrated. Inside the caller's transaction."""
    await connection.execute(query("relay.lock_versions"), LOCK_SPACE, Lock.MIGRATE)
    await connection.execute(query("snapshots.mint_first"), "a new deployment")
    return await read_identity(connection)
