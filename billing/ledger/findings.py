"""Findings: what a person should look at, recorded once, and what became of it. Nothing here is ever changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from billing.ledger.database import Connection, Pool, fetch, fetchrow
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.queries import query

PAGE_SIZE = 500

Action: TypeAlias = Literal["seen", "agreed", "accepted", "booked"]
"""How a finding ended: seen: nothing had to be done; agreed: the books agree again; accepted: the operator let it
stand; booked: what it says is missing was booked."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Who ended it, why, how."""

    resolved_at: datetime
    author: str
    reason: str
    action: Action
    detail: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` names what it is about beside the account: a session, a payment, an entry; `resolution` is None while
    it is open."""

    id: int
    kind: str
    found_at: datetime
    account: str | None
    partition: int | None
    subject_kind: str | None
    subject: str | None
    kept_offset: int | None
    refused_offset: int | None
    detail: dict[str, Any]
    resolution: Resolution | None
    currency: str | None = None  # the account's


@dataclass(frozen=True, slots=True)
class NewFinding:
    """To be recorded. With a `subject` there is one open finding of its kind about each, else one of each account."""

    kind: str
    account: str | None = None
    partition: int | None = None
    subject_kind: str | None = None
    subject: str | None = None
    detail: Mapping[str, Any] | None = None


async def record(connection: Connection, new: NewFinding, *, ever: bool = False) -> int | None:
    """Record it in the caller's transaction; its number, or None when an open one says the same already (`ever`: or one
    of its kind about this subject did, whatever has become of it)."""
    await connection.execute(query("findings.lock"), LOCK_SPACE, Lock.FINDING)
    known = (
        connection.fetchval(query("findings.ever"), new.kind, new.subject_kind, new.subject)
        if ever
        else connection.fetchval(query("findings.open"), new.kind, new.account, new.subject)
    )
    if await known is not None:
        return None
    detail = msgspec.json.encode(dict(new.detail or {})).decode()
    found: int = await connection.fetchval(
        query("findings.add"), new.kind, new.account, new.partition, new.subject_kind, new.subject, detail
    )
    return found


async def resolve(
    connection: Connection,
    finding: int,
    *,
    author: str,
    reason: str,
    action: Action,
    detail: Mapping[str, Any] | None = None,
) -> bool:
    """End a finding in the caller's transaction; False when it had ended before."""
    text = None if detail is None else msgspec.json.encode(dict(detail)).decode()
    done = await connection.fetchval(query("findings.resolve"), finding, author, reason, action, text)
    return done is not None


async def show(pool: Pool, finding: int) -> Finding | None:
    """One finding by its number."""
    row = await fetchrow(pool, query("findings.one"), finding)
    return None if row is None else _finding(row)


async def findings(
    pool: Pool,
    *,
    only_open: bool = False,
    account: str | None = None,
    kind: str | None = None,
    page_size: int = PAGE_SIZE,
) -> AsyncIterator[Finding]:
    """Findings in the order in which they were recorded, read page by page."""
    after = 0
    while True:
        rows = await fetch(pool, query("findings.page"), after, page_size, only_open, account, kind)
        for row in rows:
            yield _finding(row)
        if len(rows) < page_size:
            return
        after = rows[-1]["id"]


async def open_counts(pool: Pool) -> dict[str, int]:
    """Open findings per kind."""
    return {row["kind"]: row["findings"] for row in await fetch(pool, query("findings.open_counts"))}


def _finding(row: Any) -> Finding:
    resolution = None
    if row["resolved_at"] is not None:
        resolution = Resolution(
            row["resolved_at"], row["author"], row["reason"], row["action"], _decoded(row["resolution"])
        )
    return Finding(
        id=row["id"],
        kind=row["kind"],
        found_at=row["found_at"],
        account=row["account_id"],
        partition=row["partition"],
        subject_kind=row["session_kind"],
        subject=row["session_id"],
        kept_offset=row["kept_offset"],
        refused_offset=row["refused_offset"],
        detail=_decoded(row["detail"]) or {},
        resolution=resolution,
        currency=row["currency"],
    )


def _decoded(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
