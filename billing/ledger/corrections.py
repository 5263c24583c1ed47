"""Giving back what a session cost: an entry that says what it corrects (R6), and makes nobody due for a charge (R5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from billing.ledger.booking import Booked, EntryRequest, book, hash_of, repeat
from billing.ledger.database import Connection, Pool
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import Conflict, Invalid, NoSuchAccount, is_amount, is_id, text_problem
from billing.usage.ops import SessionKind


@dataclass(frozen=True, slots=True)
class Refunded:
    """`amount_micros` was given back; `left_micros` of the session's price can still be."""

    entry: Booked
    kind: SessionKind
    session: str
    amount_micros: int
    left_micros: int


@dataclass(frozen=True, slots=True)
class NoSuchSession:
    """The account has no settled session of this id (and kind)."""

    account: str
    session: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Sessions of several kinds have this id."""

    session: str
    kinds: tuple[SessionKind, ...]


@dataclass(frozen=True, slots=True)
class TooMuch:
    """Only `left_micros` of `price_micros` can still be given back (nothing, perhaps)."""

    what: str
    currency: str
    price_micros: int
    left_micros: int


RefundAnswer: TypeAlias = Refunded | NoSuchSession | Ambiguous | TooMuch | Conflict | NoSuchAccount | Invalid


async def refund_usage(
    pool: Pool,
    account: str,
    session: str,
    amount_micros: int | None,
    reason: str,
    *,
    author: str,
    kind: SessionKind | None = None,
    key: str | None = None,
) -> RefundAnswer:
    """Give back `amount_micros` of what a settled session cost; None: all that is left of it. At most its price in all,
    re-rating included. The same `key` books once. Raises what asyncpg raises: repeat with the same key then."""
    problem = problem_of(account, amount_micros, {"reason": reason, "author": author, "key": key})
    if problem is None and not is_id(session):
        return NoSuchSession(account, str(session)[:64])
    if problem is not None:
        return problem
    ask = _Refund(account, session, kind, amount_micros, reason, author, key)
    return await in_transaction(pool, ask.run)


@dataclass(frozen=True, slots=True)
class _Refund:
    account: str
    session: str
    kind: SessionKind | None
    amount_micros: int | None
    reason: str
    author: str
    key: str | None

    async def run(self, connection: Connection) -> RefundAnswer:
        row = await connection.fetchrow(query("accounts.lock"), self.account)
        if row is None:
            return NoSuchAccount(self.account)
        asked = ["usage", self.account, self.session, self.kind, self.amount_micros, self.reason]
        before = await _before(connection, self.account, self.key, hash_of(asked), row)
        if isinstance(before, Conflict):
            return before
        if before is None:
            return await self._refund(connection, row["currency"], asked)
        done = await connection.fetchrow(query("corrections.refund_of"), before.entry_id)
        assert done is not None  # the database holds it (correction_sum)
        (found,) = await self._sessions(connection, done["kind"])
        left_micros = found["amount_micros"] - found["back_micros"]
        return Refunded(before, done["kind"], self.session, done["amount_micros"], left_micros)

    async def _refund(self, connection: Connection, currency: str, asked: list[str | int | None]) -> RefundAnswer:
        sessions = await self._sessions(connection, self.kind)
        if not sessions:
            return NoSuchSession(self.account, self.session)
        if len(sessions) > 1:
            return Ambiguous(self.session, tuple(found["kind"] for found in sessions))
        kind, price_micros = sessions[0]["kind"], sessions[0]["amount_micros"]
        left_micros = price_micros - sessions[0]["back_micros"]
        amount_micros = left_micros if self.amount_micros is None else self.amount_micros
        if amount_micros == 0 or amount_micros > left_micros:
            return TooMuch(f"{kind} {self.session}", currency, price_micros, left_micros)
        detail = {"kind": kind, "session": self.session}
        booked = await book(
            connection,
            EntryRequest(
                *(self.account, amount_micros, "refund", self.reason, self.author, self.key),
                detail=detail,
                asked=asked,
            ),
        )
        if not isinstance(booked, Booked):
            return booked
        await connection.execute(
            query("corrections.add_refund"), self.account, kind, self.session, booked.entry_id, amount_micros
        )
        return Refunded(booked, kind, self.session, amount_micros, left_micros - amount_micros)

    async def _sessions(self, connection: Connection, kind: SessionKind | None) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await connection.fetch(
            query("corrections.sessions"), self.account, self.session, kind
        )
        return rows


async def _before(
    connection: Connection, account: str, key: str | None, input_hash: str, row: asyncpg.Record
) -> Booked | Conflict | None:
    """What `key` booked before, or that it stands for something else."""
    found = None if key is None else await connection.fetchrow(query("booking.by_key"), key)
    return None if found is None else repeat(account, input_hash, found, row)


def problem_of(account: str, amount_micros: int | None, texts: dict[str, str | None]) -> Invalid | None:
    """What is wrong with an amount (None: all that is left) or with a text."""
    if amount_micros is not None and not is_amount(amount_micros, 1):
        return Invalid(account, "amount_micros", "must be above 0")
    for field, value in texts.items():
        problem = None if value is None else text_problem(value, empty=False)
        if problem is not None:
            return Invalid(account, field, problem)
    return None
