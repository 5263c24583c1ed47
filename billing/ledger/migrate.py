"""Forward-only migrations: `migrations/NNNN_name.sql`, each applied once, in order.

Before a deployment, `migrate` applies those that processes of the build before can live with. What must wait until none
of them runs any more is in `NNNN_name.post.sql`, and applied by `migrate --post`; to a fresh ledger all are applied at
once. A migration that does not get its locks within seconds lets the consumers go on, and tries again.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files

import asyncpg

from billing.ledger.database import Connection, RollBack, connect
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.queries import query
from billing.ledger.roles import Granted, NotGranted, grant_runtime

USAGE_TOPIC = "usage.events"  # logical names: tables do not know the deployment's namespace
SIGNALS_TOPIC = "billing.signals"
MIGRATE_TIMEOUT_S = 120.0
LOCK_TIMEOUT_S = 3  # nobody waits longer for a migration that waits itself
ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    text: str
    post: bool = False

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Migrated:
    """`applied` names what this run did; empty when the ledger was current. `waiting` waits for `--post`."""

    applied: tuple[str, ...]
    version: int
    timeline: str
    partitions: int
    granted: Granted | None = None
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MigrationRefused:
    """Nothing was changed."""

    reason: str


_LOST = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


class MigrationFailed(Exception):
    """A statement failed; the transaction was rolled back. Names the file and the statement's first line."""


def migrations() -> tuple[Migration, ...]:
    """All of this build's migrations, in order."""
    found = []
    for file in (files("billing.ledger") / "migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_[a-z0-9_]+(\.post)?\.sql", file.name)
        if match:
            text = file.read_text(encoding="utf-8")
            found.append(Migration(int(match[1]), file.name.removesuffix(".sql"), text, post=bool(match[2])))
    return tuple(sorted(found, key=lambda migration: migration.version))


def newest_version() -> int:
    """What a ledger must have for this build; migrations after the deployment do not count."""
    return max(migration.version for migration in migrations() if not migration.post)


def statements(text: str) -> Iterator[str]:
    """Split at the semicolons that end a line, outside $$ bodies. Good for our own files, not a general parser."""
    lines: list[str] = []
    in_body = False
    for line in text.splitlines():
        lines.append(line)
        code = line.split("--", 1)[0].rstrip()
        if code.count("$$") % 2:
            in_body = not in_body
        if code.endswith(";") and not in_body:
            yield "\n".join(lines).strip()
            lines = []
    if any(line.strip() and not line.lstrip().startswith("--") for line in lines):
        raise ValueError(f"statement without a semicolon: {lines[0]!r}")


async def migrate(
    dsn: str, partitions: int, runtime_dsn: str = "", *, post: bool = False
) -> Migrated | MigrationRefused:
    """Bring the ledger to this build's schema, all of it in one transaction under an advisory lock, as its owner
    (`dsn`); the user of `runtime_dsn`, if given, becomes its runtime role.

    The first run mints the timeline and fixes the partition count. Raises MigrationFailed, OSError.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await _attempt(dsn, partitions, runtime_dsn, post)
        except MigrationFailed as failed:
            if not isinstance(failed.__cause__, _LOST) or attempt == ATTEMPTS:
                raise
        await asyncio.sleep(random.uniform(0.2, 1.0))
    raise AssertionError("the last attempt answers or raises")


async def _attempt(dsn: str, partitions: int, runtime_dsn: str, post: bool) -> Migrated | MigrationRefused:
    connection = await connect(dsn, command_timeout_s=MIGRATE_TIMEOUT_S, application_name="billing-migrate")
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1, $2)", LOCK_SPACE, Lock.MIGRATE)
            await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_S}s'")
            migrated = await _migrate(connection, partitions, post)
            return await _grant(connection, migrated, runtime_dsn)
    except RollBack as rolled_back:
        refused: MigrationRefused = rolled_back.answer
        return refused
    finally:
        await connection.close(timeout=5)


async def _grant(
    connection: Connection, migrated: Migrated | MigrationRefused, runtime_dsn: str
) -> Migrated | MigrationRefused:
    if isinstance(migrated, MigrationRefused):
        return migrated
    await connection.execute(query("roles.pin_functions"))
    if not runtime_dsn:
        return migrated
    granted = await grant_runtime(connection, runtime_dsn)
    if isinstance(granted, NotGranted):
        raise RollBack(MigrationRefused(granted.reason))
    return replace(migrated, granted=granted)


async def _migrate(connection: Connection, partitions: int, post: bool) -> Migrated | MigrationRefused:
    await connection.execute(
        "create table if not exists schema_migrations (version integer primary key, name text not null,"
        " checksum text not null, applied_at timestamptz not null default now())"
    )
    done = {row["version"]: row for row in await connection.fetch("select * from schema_migrations")}
    known = migrations()
    if done and max(done) > known[-1].version:
        return MigrationRefused(f"the ledger has schema version {max(done)}, this build knows {known[-1].version}")
    applied = []
    waiting = []
    for migration in known:
        if migration.version not in done and migration.post and done and not post:
            waiting.append(migration.name)
        elif migration.version not in done:
            await _apply(connection, migration)
            applied.append(migration.name)
        elif done[migration.version]["checksum"] != migration.checksum:
            return MigrationRefused(f"{migration.name} was changed after it had been applied")
    meta = await _meta(connection, partitions)
    if meta["moving_to"] is not None:
        return MigrationRefused(
            f"a migration to {meta['moving_to']} partitions is not complete: run"
            f" `billing partitions migrate --to {meta['moving_to']} --apply` again (S16)"
        )
    if meta["partitions"] != partitions:
        return MigrationRefused(
            f"the ledger was made for {meta['partitions']} partitions, not {partitions} (S16):"
            " `billing partitions show` says what to do"
        )
    version = max({*done, *(migration.version for migration in known if migration.name in applied)})
    return Migrated(tuple(applied), version, meta["timeline"], partitions, waiting=tuple(waiting))


async def _apply(connection: Connection, migration: Migration) -> None:
    for statement in statements(migration.text):
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError as error:
            first = next(line for line in statement.splitlines() if not line.startswith("--") and line)
            raise MigrationFailed(f"{migration.name}: {first!r}: {error}") from error
    await connection.execute(
        "insert into schema_migrations (version, name, checksum) values ($1, $2, $3)",
        migration.version,
        migration.name,
        migration.checksum,
    )


async def _meta(connection: Connection, partitions: int) -> asyncpg.Record:
    await connection.execute(
        "insert into ledger_meta (timeline, partitions) values ($1, $2) on conflict do nothing",
        secrets.token_hex(8),
        partitions,
    )
    meta: asyncpg.Record | None = await connection.fetchrow("select timeline, partitions, moving_to from ledger_meta")
    assert meta is not None
    await connection.execute(
        "insert into positions (topic, partition) select t, p from unnest($1::text[]) as t,"
        " generate_series(0, $2::integer - 1) as p on conflict do nothing",
        [USAGE_TOPIC, SIGNALS_TOPIC],
        meta["partitions"],
    )
    await connection.execute(
        "update recharge_switch set reconciled_timeline = $1 where reconciled_timeline is null", meta["timeline"]
    )
    return meta
