"""Booking a re-rating: bounded batches, each one transaction, so that it may be killed anywhere and begun again.

What was booked is known by the link of each session to the version that re-rated it, so a repeat goes on where the last
run ended, and books late usage of the span; nothing is booked twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from billing.ledger.database import Connection, Pool, lease
from billing.ledger.queries import query
from billing.ledger.rerate import (
    SCAN_TIMEOUT_S,
    Booked,
    LaterVersion,
    Span,
    allow_long,
    booked,
    correction_of,
    later_version,
)
from billing.ledger.retry import in_transaction
from billing.ledger.terms import Invalid, text_problem
from billing.rating.tariff import Tariff

PAGE_ACCOUNTS = 500
BATCH_SESSIONS = 5000  # so that settlement waits a fraction of a second for these accounts


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `sessions` have been looked at; `booked` of them were corrected in this run."""

    done: int
    sessions: int
    booked: int


@dataclass(frozen=True, slots=True)
class Applied:
    """`now` sessions were corrected in this run; `in_all` is the whole re-rating, exactly as it is in the books.
    `unpriced` sessions have no price by the version and stay as they are."""

    now: int
    unpriced: int
    in_all: Booked


@dataclass(frozen=True, slots=True)
class Busy:
    """Another re-rating of the plan is running."""

    plan: str


ApplyAnswer: TypeAlias = Applied | Busy | LaterVersion | Invalid
Hear: TypeAlias = Callable[[Progress], None]


def _silent(_progress: Progress) -> None:
    """No progress wanted."""


async def apply(
    pool: Pool, span: Span, tariff: Tariff, *, author: str, reason: str, hear: Hear = _silent
) -> ApplyAnswer:
    """Book the corrections of `span` (as `resolve` gave it) that are not booked yet. Raises what asyncpg raises; the
    same again goes on."""
    for field, value in (("author", author), ("reason", reason)):
        problem = text_problem(value, empty=False)
        if problem is not None:
            return Invalid(span.plan, field, problem)
    async with lease(pool) as connection:
        # the lock goes with the session, or when the pool takes the connection back
        if not await connection.fetchval(query("rerate.lock"), span.plan):
            return Busy(span.plan)
        started = await _start(connection, span, author, reason)
        if isinstance(started, LaterVersion):
            return started
        run = _Run(pool, span, tariff, started, author, reason)
        async for accounts in _pages(connection, run, hear):
            await run.go_through(accounts)
        hear(Progress(run.sessions, run.sessions, run.booked))
    return Applied(run.booked, run.unpriced, await booked(pool, span))


async def _start(connection: Connection, span: Span, author: str, reason: str) -> int | LaterVersion:
    """The number of this re-rating, new or found; collects the accounts that it concerns."""
    refusal = await later_version(connection, span)
    if refusal is not None:
        return refusal
    place = (span.plan, span.version, span.from_ms, span.to_ms)
    await connection.execute(query("rerate.start"), *place, author, reason)
    run = await connection.fetchrow(query("rerate.find"), *place)
    assert run is not None  # never deleted
    async with connection.transaction():
        await allow_long(connection)
        await connection.execute(query("rerate.prepare_todo"))
        await connection.execute(query("rerate.collect"), span.plan, span.from_ms, span.to_ms, timeout=SCAN_TIMEOUT_S)
    number: int = run["id"]
    return number


async def _pages(connection: Connection, run: _Run, hear: Hear) -> AsyncIterator[list[str]]:
    size = await connection.fetchrow(query("rerate.todo_size"))
    assert size is not None  # an aggregate has one row
    run.sessions, done, after = size["sessions"], 0, 0
    while page := await connection.fetch(query("rerate.todo_page"), after, PAGE_ACCOUNTS, BATCH_SESSIONS):
        hear(Progress(done, run.sessions, run.booked))
        yield [row["account_id"] for row in page]
        after = page[-1]["ord"]
        done += sum(row["sessions"] for row in page)


@dataclass(slots=True)
class _Run:
    pool: Pool
    span: Span
    tariff: Tariff
    number: int
    author: str
    reason: str
    sessions: int = 0
    booked: int = 0
    unpriced: int = 0

    async def go_through(self, accounts: Sequence[str]) -> None:
        """One batch; an account that does not fit into one comes alone, and in several."""
        if len(accounts) > 1:
            await self._batch(accounts, None)
            return
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            after = await self._batch(accounts, after)

    async def _batch(self, accounts: Sequence[str], after: tuple[str, str] | None) -> tuple[str, str] | None:
        """Where in the account to go on, or None."""
        rows, corrected, unpriced = await in_transaction(
            self.pool, lambda connection: self._correct(connection, accounts, after)
        )
        self.booked += corrected
        self.unpriced += unpriced
        if after is None or len(rows) < BATCH_SESSIONS:
            return None
        return rows[-1]["kind"], rows[-1]["session_id"]

    async def _correct(
        self, connection: Connection, accounts: Sequence[str], after: tuple[str, str] | None
    ) -> tuple[list[asyncpg.Record], int, int]:
        """The sessions of a batch, how many of them were corrected, and how many have no price."""
        await connection.execute(query("sink.look_up"))
        await connection.execute(query("rerate.lock_balances"), accounts)
        place = (self.span.plan, self.span.from_ms, self.span.to_ms, self.span.version)
        if after is None:
            rows = await connection.fetch(query("rerate.sessions"), accounts, *place)
        else:
            rows = await connection.fetch(query("rerate.next_sessions"), accounts[0], *place, *after, BATCH_SESSIONS)
        corrections, unpriced = [], 0
        for row in rows:
            correction = None if row["done"] else correction_of(self.tariff, row)
            unpriced += correction is None and not row["done"]
            if correction is not None and correction[0]:
                corrections.append((row["account_id"], row["kind"], row["session_id"], *correction))
        if corrections:
            await connection.execute(query("rerate.prepare_batch"))
            await connection.copy_records_to_table("rerated", schema_name="pg_temp", records=corrections)
            await connection.execute(query("rerate.book"), self.author, self.reason, self.number, self.span.version)
        return rows, len(corrections), unpriced
