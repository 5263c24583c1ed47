"""Preparing a deployment: PostgreSQL's schema, the topics, the balance store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from billing.balance.admin import Done, Exists, Positions, initialise, load_functions
from billing.balance.calls import Functions
from billing.balance.client import UnsupportedServer, check_server, open_client
from billing.ledger.database import open_pool, transaction
from billing.ledger.incarnations import Identity, first_incarnation
from billing.ledger.migrate import MigrationRefused
from billing.ledger.migrate import migrate as migrate_ledger
from billing.ledger.queries import query
from billing.ledger.roles import Granted
from billing.settings import Settings
from billing.stream.record import Position
from billing.stream.topics import TopicsRefused, ensure_topics

NEW = Positions(usage=Position(0, ""), entries=Position(0, ""))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `migrate` found and did, one line each."""

    lines: tuple[str, ...]
    timeline: str
    incarnation: int | None


@dataclass(frozen=True, slots=True)
class NotPrepared:
    """Why this deployment must not run as it is; what had been done before stays done."""

    reason: str


async def migrate(settings: Settings, *, post: bool = False) -> Prepared | NotPrepared:
    """Bring everything to what this build needs; safe to repeat, also while consumers run. `post`: also what had to
    wait until no process of an earlier build runs.

    Mints an incarnation of the balance store only for a ledger without entries (R1): a store that lost what it had
    is filled by `billing rebuild`, never declared empty. Raises what the servers' clients raise when one is away.
    """
    async with _functions(settings) as functions:
        try:
            server = await check_server(functions.client)
        except UnsupportedServer as error:
            return NotPrepared(str(error))
        ledger = await migrate_ledger(settings.owner_dsn, settings.partitions, settings.postgres_dsn, post=post)
        if isinstance(ledger, MigrationRefused):
            return NotPrepared(ledger.reason)
        topics = await ensure_topics(settings)
        if isinstance(topics, TopicsRefused):
            return NotPrepared("; ".join(topics.reasons))
        lines = [
            f"ledger: schema {ledger.version}, applied {len(ledger.applied)} migrations, timeline {ledger.timeline}",
            *_waiting(ledger.waiting),
            _roles(ledger.granted),
            f"topics: {', '.join(topics.created) or 'nothing'} created",
        ]
        prepared = await _prepare_store(settings, functions)
        if isinstance(prepared, NotPrepared):
            return prepared
        identity, line = prepared
    return Prepared((*lines, f"balance store: {server}, {line}"), ledger.timeline, identity.incarnation)


def _waiting(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"ledger: {', '.join(names)} waits: `billing migrate --post` once every process is of this build"]


def _roles(granted: Granted | None) -> str:
    if granted is None or not granted.restrained:
        return (
            "roles: consumers are the ledger's owner or a superuser; give migrate BILLING_POSTGRES_OWNER_DSN and them"
            " another user, so that the database itself refuses what they must not do"
        )
    made = "created" if granted.created else "found"
    return f"roles: {granted.role} {made}; it may add to the books, not change them"


async def _prepare_store(settings: Settings, functions: Functions) -> tuple[Identity, str] | NotPrepared:
    trouble = await load_functions(functions)
    if trouble is not None:
        return NotPrepared(f"the balance store refuses the functions: {trouble.reason}")
    pool = await open_pool(settings.postgres_dsn, max_size=1, application_name="billing-migrate")
    try:
        async with transaction(pool) as connection:
            identity = await first_incarnation(connection)
            used: bool = await connection.fetchval(query("operations.has_entries"))
    finally:
        await asyncio.wait_for(pool.close(), timeout=5)
    if identity is None:
        return NotPrepared("the ledger has no identity")
    if identity.incarnation is None:
        return NotPrepared("the ledger has entries but no incarnation of the balance store: run `billing rebuild`")
    if used:
        return identity, f"functions loaded, incarnation {identity.incarnation}"
    return await _initialise(functions, identity)


async def _initialise(functions: Functions, identity: Identity) -> tuple[Identity, str] | NotPrepared:
    """A first, empty state, in the partitions that have none."""
    assert identity.incarnation is not None
    fresh = 0
    for partition in range(identity.partitions):
        answer = await initialise(functions, partition, identity.incarnation, identity.timeline, NEW)
        match answer:
            case Done():
                fresh += 1
            case Exists(timeline=timeline) if timeline != identity.timeline:
                return NotPrepared(
                    f"the balance store's keys {functions.keys.prefix!r} are another ledger's (timeline {timeline}):"
                    " use another BILLING_NAMESPACE, or remove them"
                )
            case Exists():
                pass
            case _:
                return NotPrepared(f"the balance store refuses partition {partition}: {answer}")
    return identity, f"{fresh} partitions initialised, incarnation {identity.incarnation}"


@asynccontextmanager
async def _functions(settings: Settings) -> AsyncIterator[Functions]:
    client = open_client(settings.redis_url)
    try:
        yield Functions(client, settings.key_space)
    finally:
        await client.aclose()
