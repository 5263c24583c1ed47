"""Booking that the gateway gave a payment back, or a bank took it back, and that such money came back to us: a refund
that failed, a dispute that was won. Moves no money at the gateway, and makes nobody due for a charge (R5).

Every booking is under the gateway's own id of what happened, whoever books it: an operator and a webhook, or the same
webhook again, book it once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import asyncpg
import msgspec

from billing.ledger.booking import BookAnswer, Booked, EntryRequest, book
from billing.ledger.corrections import TooMuch, problem_of
from billing.ledger.database import Connection, Pool
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import Conflict, Invalid, NoSuchAccount

TakenBack: TypeAlias = Literal["payment_refund", "chargeback"]

_WENT: dict[TakenBack, str] = {"payment_refund": "gateway:refund:", "chargeback": "gateway:dispute:"}
_CAME_BACK: dict[TakenBack, str] = {"payment_refund": "gateway:refund_failed:", "chargeback": "gateway:dispute_won:"}


@dataclass(frozen=True, slots=True)
class NotCredited:
    """There is no such recharge, or its payment is not in the books (yet)."""

    recharge: int
    exists: bool


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Nothing was booked under this id, so there is nothing to come back."""

    gateway_id: str


TakenBackAnswer: TypeAlias = Booked | NotCredited | TooMuch | Conflict | NoSuchAccount | Invalid


async def take_back(
    pool: Pool,
    recharge: int,
    origin: TakenBack,
    amount_micros: int | None,
    reason: str,
    *,
    author: str,
    gateway_id: str,
) -> TakenBackAnswer:
    """Book that `amount_micros` of a recharge's payment went back (None: all that is left of it). `gateway_id` is the
    refund's or the dispute's: booked once; Conflict where it was, for another amount or payment."""
    problem = problem_of(
        f"recharge {recharge}", amount_micros, {"reason": reason, "author": author, "gateway_id": gateway_id}
    )
    if problem is not None:
        return problem
    key = _WENT[origin] + gateway_id

    async def work(connection: Connection) -> TakenBackAnswer:
        payment = await connection.fetchrow(query("corrections.payment"), recharge)
        if payment is None or payment["entry_id"] is None:
            return NotCredited(recharge, exists=payment is not None)
        row = await connection.fetchrow(query("accounts.lock"), payment["account_id"])
        assert row is not None  # a recharge has its account
        before = await connection.fetchrow(query("corrections.by_key"), key)
        if before is not None:
            same = before["corrects_id"] == payment["entry_id"] and amount_micros in {None, -before["amount_micros"]}
            return _booked(before, row) if same else Conflict(row["id"], "key", f"entry {before['id']}", gateway_id)
        # again, now that nobody else can take something back
        payment = await connection.fetchrow(query("corrections.payment"), recharge)
        assert payment is not None
        left_micros = payment["amount_micros"] - payment["back_micros"]
        back_micros = left_micros if amount_micros is None else amount_micros
        if back_micros == 0 or back_micros > left_micros:
            return TooMuch(f"recharge {recharge}", payment["currency"], payment["amount_micros"], left_micros)
        request = EntryRequest(
            *(payment["account_id"], -back_micros, origin, reason, author, key, payment["entry_id"]),
            detail={"recharge": recharge, "payment": payment["payment_id"]},
        )
        return await book(connection, request)

    return await in_transaction(pool, work)


async def came_back(
    pool: Pool, origin: TakenBack, reason: str, *, author: str, gateway_id: str
) -> BookAnswer | NotTaken:
    """Book that the money of a refund or dispute that was booked is ours again: what the customer lost by it is given
    back to them, against the account that it went to, once."""
    key = _CAME_BACK[origin] + gateway_id

    async def work(connection: Connection) -> BookAnswer | NotTaken:
        went = await connection.fetchrow(query("corrections.by_key"), _WENT[origin] + gateway_id)
        if went is None:
            return NotTaken(gateway_id)
        row = await connection.fetchrow(query("accounts.lock"), went["account_id"])
        assert row is not None  # an entry has its account
        before = await connection.fetchrow(query("corrections.by_key"), key)
        if before is not None:
            return _booked(before, row)
        request = EntryRequest(
            *(went["account_id"], -went["amount_micros"], origin, reason, author, key, went["corrects_id"]),
            detail=msgspec.json.decode(went["detail"]),
        )
        return await book(connection, request)

    return await in_transaction(pool, work)


def _booked(entry: asyncpg.Record, row: asyncpg.Record) -> Booked:
    """What was booked before; `row` is its account's."""
    balance_micros = row["credit_micros"] - row["used_micros"]
    return Booked(entry["account_id"], entry["id"], entry["ledger_seq"], balance_micros, row["currency"], repeated=True)
