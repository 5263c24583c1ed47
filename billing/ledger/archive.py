"""Moving old settled usage out of the ledger into files, for good (the one exception to R6, made by the owner alone).

A file is written, synced and read back before its sessions are deleted; naming it, deleting them and keeping their sums
is one transaction, checked by the database (0019_archive.sql). A crash in between leaves a file that nothing names: the
next run writes it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from billing.ledger.archive_files import make_folder, read_back, write_file, write_manifest
from billing.ledger.database import Connection, Pool, connect, fetch
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.queries import query

FILE_SESSIONS = 50_000
TIMEOUT_S = 600.0
MIN_DAYS = 91  # a repeat that is older than 90 days is a dead letter


@dataclass(frozen=True, slots=True)
class Archive:
    """One file: JSON lines, compressed with gzip; `amounts` in micro-units by currency."""

    id: int
    archived_at: datetime
    author: str
    reason: str
    before_ms: int
    file: str
    sha256: str
    sessions: int
    amounts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Archived:
    """What a run took away."""

    sessions: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArchiveRefused:
    """Nothing was taken away."""

    reason: str


Progress = Callable[[str, int], None]
"""Hears the file and how many sessions have been archived so far."""


async def archive_usage(
    owner_dsn: str, older_than_ms: int, folder: Path, *, author: str, reason: str, progress: Progress
) -> Archived | ArchiveRefused:
    """Archive sessions of a log time before `older_than_ms` that no repeat can reach and no correction names. Raises
    OSError where the folder cannot be written, and what asyncpg raises; what was archived before stays so."""
    connection = await connect(owner_dsn, command_timeout_s=TIMEOUT_S, application_name="billing-archive")
    try:
        if not await connection.fetchval(query("archive.is_owner")):
            return ArchiveRefused("only the ledger's owner may archive: set BILLING_POSTGRES_OWNER_DSN")
        if not await connection.fetchval(query("archive.lock"), LOCK_SPACE, Lock.ARCHIVE):
            return ArchiveRefused("another archive is under way")
        make_folder(folder)
        run = _Run(connection, older_than_ms, folder, (author, reason), progress)
        files = [file async for file in run.files()]
        write_manifest(folder, msgspec.to_builtins(await _archives(connection)))
        return Archived(run.sessions, tuple(files))
    finally:
        await connection.close(timeout=5)


@dataclass
class _Run:
    connection: Connection
    older_than_ms: int
    folder: Path
    attributed: tuple[str, str]
    progress: Progress
    sessions: int = 0

    async def files(self) -> AsyncIterator[str]:
        """Archive file by file, and name each."""
        timeline = await self.connection.fetchval("select timeline from ledger_meta")
        bounds = {
            row["partition"]: min(self.older_than_ms, row["before_ms"])
            for row in await self.connection.fetch(query("archive.bounds"))
        }
        for row in await self.connection.fetch(query("archive.parts")):
            part: str = row["part"]
            after: tuple[str, str, str] = ("", "", "")
            while rows := await self.connection.fetch(_pick(part), *after, *_columns(bounds), FILE_SESSIONS):
                after = _key(rows[-1])
                yield await self._archive(f"{part}-{timeline}", part, rows)

    async def _archive(self, prefix: str, part: str, rows: Sequence[asyncpg.Record]) -> str:
        first, last = _key(rows[0]), _key(rows[-1])
        file, sha256 = write_file(self.folder, prefix, [dict(row) for row in rows])
        read_back(self.folder / file, sha256, len(rows))
        amounts: dict[str, int] = {}
        for row in rows:
            amounts[row["currency"]] = amounts.get(row["currency"], 0) + row["amount_micros"]
        before_ms = max(row["log_time_ms"] for row in rows) + 1
        async with self.connection.transaction():
            await self.connection.execute(
                query("archive.add"),
                *(*self.attributed, before_ms, file, sha256, len(rows), msgspec.json.encode(amounts).decode()),
            )
            keys = [[row[name] for row in rows] for name in ("account_id", "kind", "session_id")]
            await self.connection.execute(_delete(part), *first, *last, *keys)
        self.sessions += len(rows)
        self.progress(file, self.sessions)
        return file


def _key(row: asyncpg.Record) -> tuple[str, str, str]:
    return row["account_id"], row["kind"], row["session_id"]


def _columns(bounds: dict[int, int]) -> tuple[list[int], list[int]]:
    return list(bounds), list(bounds.values())


# Partitions are named in the statement, for one on the parent is refused. The names come from the catalogue, quoted.


def _pick(part: str) -> str:
    return (
        f"select u.* from {part} u"
        " join unnest($4::integer[], $5::bigint[]) as b (partition, before_ms) using (partition)"
        " where (u.account_id, u.kind, u.session_id) > ($1, $2, $3) and u.log_time_ms < b.before_ms"
        " and not exists (select from usage_corrections c where c.account_id = u.account_id and c.kind = u.kind"
        " and c.session_id = u.session_id)"
        " order by u.account_id, u.kind, u.session_id limit $6"
    )


def _delete(part: str) -> str:
    return (
        f"delete from {part} u using unnest($7::text[], $8::text[], $9::text[]) as w (account_id, kind, session_id)"
        " where (u.account_id, u.kind, u.session_id) >= ($1, $2, $3)"
        " and (u.account_id, u.kind, u.session_id) <= ($4, $5, $6)"
        " and u.account_id = w.account_id and u.kind = w.kind and u.session_id = w.session_id"
    )


async def archives(pool: Pool) -> list[Archive]:
    """Every archive, in order."""
    return [_archive(row) for row in await fetch(pool, query("archive.list"))]


async def _archives(connection: Connection) -> list[Archive]:
    return [_archive(row) for row in await connection.fetch(query("archive.list"))]


def _archive(row: Any) -> Archive:
    return Archive(**{**row, "amounts": msgspec.json.decode(row["amounts"])})
