"""Re-rating: what settled usage of a plan would have cost by another of its tariff versions, per account.

A version that corrects the past is loaded as any other: it is on record before it moves money. Sessions are chosen by
their price time; a session is re-rated once with a version, whatever the spans.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from billing.ledger.database import Connection, Pool, lease
from billing.ledger.queries import query
from billing.rating.reprice import given_back, price_again
from billing.rating.tariff import Tariff
from schemas.catalogue import Rate, TariffVersion

SCAN_TIMEOUT_S = 1800.0  # looking through all settled usage
CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Span:
    """Usage of `plan` priced in [from_ms, to_ms) (ms since 1970 UTC), with the version to price it by."""

    plan: str
    version: int
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class NoSuchVersion:
    """The plan has no tariff, or not this version of it."""

    plan: str
    version: int | None


@dataclass(frozen=True, slots=True)
class EmptySpan:
    """`from` is not before `to`."""


@dataclass(frozen=True, slots=True)
class LaterVersion:
    """Re-rating `rerate` has priced some of the span with a later version: going back needs the rates loaded anew."""

    rerate: int
    version: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What re-rating does to one account. `cost_micros` is what its `sessions` cost now, `given_back_micros` and
    `charged_micros` (in addition) what changes for `changed` of them. `unpriced` sessions have no price by the version
    and stay as they are."""

    account: str
    sessions: int
    changed: int
    unpriced: int
    cost_micros: int
    given_back_micros: int
    charged_micros: int

    @property
    def difference_micros(self) -> int:
        """What it changes the balance by."""
        return self.given_back_micros - self.charged_micros


@dataclass(frozen=True, slots=True)
class Booked:
    """What has been booked of a re-rating, in all its runs. Nothing of it (None) before the first."""

    rerate: int | None
    sessions: int = 0
    accounts: int = 0
    entries: int = 0
    given_back_micros: int = 0
    charged_micros: int = 0


SpanRefusal: TypeAlias = NoSuchVersion | EmptySpan | LaterVersion


async def resolve(
    pool: Pool, plan: str, version: int | None, from_ms: int, to_ms: int
) -> tuple[Span, Tariff] | SpanRefusal:
    """The span with the version (None: the newest) and its tariff, or why it cannot be re-rated."""
    if from_ms >= to_ms:
        return EmptySpan()
    async with lease(pool) as connection:
        row = await connection.fetchrow(query("rerate.version"), plan, version)
        if row is None:
            return NoSuchVersion(plan, version)
        span = Span(plan, row["version"], from_ms, to_ms)
        refusal = await later_version(connection, span)
        if refusal is not None:
            return refusal
        rates = await connection.fetch(query("tariffs.rates"), plan, span.version)
    content = TariffVersion(
        timeline=row["timeline"],
        plan=plan,
        version=span.version,
        currency=row["currency"],
        effective_ms=row["effective_ms"],
        rates=tuple(Rate(**rate) for rate in rates),
    )
    return span, Tariff(content)


async def later_version(connection: Connection, span: Span) -> LaterVersion | None:
    """The re-rating with a later version that forbids this one."""
    row = await connection.fetchrow(query("rerate.later"), span.plan, span.version, span.from_ms, span.to_ms)
    return None if row is None else LaterVersion(row["id"], row["tariff_version"])


async def booked(pool: Pool, span: Span) -> Booked:
    """What has been booked of this re-rating so far."""
    async with lease(pool) as connection:
        run = await connection.fetchrow(query("rerate.find"), span.plan, span.version, span.from_ms, span.to_ms)
        if run is None:
            return Booked(None)
        row = await connection.fetchrow(query("rerate.booked"), run["id"], timeout=SCAN_TIMEOUT_S)
    assert row is not None  # an aggregate has one row
    return Booked(run["id"], **row)


async def preview(pool: Pool, span: Span, tariff: Tariff) -> AsyncIterator[Difference]:
    """What applying would book, in one snapshot: every account with sessions that are not re-rated yet, in order, those
    without a difference too. Raises what asyncpg raises."""
    tally: _Tally | None = None
    async with _scan(pool) as connection:
        cursor = await connection.cursor(
            query("rerate.all_sessions"), span.plan, span.from_ms, span.to_ms, span.version, timeout=SCAN_TIMEOUT_S
        )
        while rows := await cursor.fetch(CHUNK, timeout=SCAN_TIMEOUT_S):
            for row in rows:
                if tally is None or tally.account != row["account_id"]:
                    if tally is not None:
                        yield tally.difference()
                    tally = _Tally(row["account_id"])
                tally.add(row["net_micros"], correction_of(tariff, row))
    if tally is not None:
        yield tally.difference()


def correction_of(tariff: Tariff, row: Any) -> tuple[int, int] | None:
    """What `tariff` gives back of a session (below 0: charges) and its price; None where it has no price."""
    price_micros = price_again(tariff, row["tariff_kind"], row["direction"], row["destination"], row["quantity"])
    if price_micros is None:
        return None
    return given_back(row["net_micros"], row["refunded_micros"], price_micros), price_micros


class _Tally:
    """One account's sums while its sessions pass."""

    def __init__(self, account: str) -> None:
        self.account = account
        self._sessions = self._changed = self._unpriced = self._cost = self._back = self._charged = 0

    def add(self, net_micros: int, correction: tuple[int, int] | None) -> None:
        self._sessions += 1
        self._cost += net_micros
        if correction is None:
            self._unpriced += 1
        elif correction[0]:
            self._changed += 1
            self._back += max(0, correction[0])
            self._charged += max(0, -correction[0])

    def difference(self) -> Difference:
        return Difference(
            *(self.account, self._sessions, self._changed, self._unpriced, self._cost, self._back, self._charged)
        )


@asynccontextmanager
async def _scan(pool: Pool) -> AsyncIterator[Connection]:
    async with (
        lease(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await allow_long(connection)
        yield connection


async def allow_long(connection: Connection) -> None:
    """Inside a transaction: it may look through all settled usage."""
    timeout_ms = int(SCAN_TIMEOUT_S * 1000)
    await connection.execute(
        f"set local statement_timeout = {timeout_ms}; set local idle_in_transaction_session_timeout = {timeout_ms};"
        " set local work_mem = '64MB'"
    )
