"""Entries on one account: each is journal, postings, balance and outbox row in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, TypeAlias

import asyncpg
import msgspec

from billing.ledger.database import Connection, Pool
from billing.ledger.entries import Posting, entry_postings
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import Conflict, Invalid, NoSuchAccount, is_amount, is_id, text_problem
from billing.money import LARGEST, MAX_MICROS
from schemas.ledger import AccountChanged, DebitsAcknowledged, EntryPosted, LedgerEntry, Origin, ViewCorrected

_TYPES: dict[type, str] = {
    AccountChanged: "ledger.account.changed.v1",
    EntryPosted: "ledger.entry.posted.v1",
    DebitsAcknowledged: "ledger.debits.acknowledged.v1",
    ViewCorrected: "ledger.view.corrected.v1",
}


@dataclass(frozen=True, slots=True)
class EntryRequest:
    """An entry that changes the customer's balance by `amount_micros`: above 0 credits, below 0 debits. The same
    `key` books once; None is never a repeat. `corrects` is the entry that this one corrects, `detail` what else is
    kept with it, `asked` what the key stands for where that is not simply the entry."""

    account: str
    amount_micros: int
    origin: Origin
    reason: str
    author: str
    key: str | None = None
    corrects: int | None = None
    detail: Mapping[str, Any] | None = None
    asked: Sequence[Any] | None = None

    def input_hash(self) -> str:
        """Of what the request asks for: a key that is used again must ask for the same."""
        if self.asked is not None:
            return hash_of(self.asked)
        link = [] if self.corrects is None else [self.corrects]
        return hash_of([self.account, self.amount_micros, self.origin, self.reason, *link])


def hash_of(asked: Sequence[Any]) -> str:
    """The hash of an input, as it is kept with its key."""
    return sha256(msgspec.json.encode(asked)).hexdigest()


@dataclass(frozen=True, slots=True)
class Booked:
    """`balance_micros` is credit - used afterwards. `repeated`: the key had booked it before; nothing was done now."""

    account: str
    entry_id: int
    ledger_seq: int
    balance_micros: int
    currency: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Debits other than usage that count towards recharge from now on."""

    account: str
    ledger_seq: int
    amount_micros: int


BookAnswer: TypeAlias = Booked | Conflict | NoSuchAccount | Invalid


async def credit(
    pool: Pool,
    account: str,
    amount_micros: int,
    reason: str,
    *,
    author: str,
    key: str | None = None,
    origin: Literal["credit", "goodwill"] = "credit",
) -> BookAnswer:
    """Credit an account by hand. Closed and suspended ones too: their balance is still owed."""
    if not is_amount(amount_micros, 1):
        return Invalid(account, "amount_micros", f"must be above 0 and at most {LARGEST}")
    request = EntryRequest(account, amount_micros, origin, reason, author, key)
    return await in_transaction(pool, lambda connection: book(connection, request))


async def adjust(
    pool: Pool,
    account: str,
    amount_micros: int,
    reason: str,
    *,
    author: str,
    key: str | None = None,
    corrects: int | None = None,
) -> BookAnswer:
    """Correct a balance, either sign (R6: a correction is a new entry), and, where it is named, the entry that was
    wrong. A debit makes nobody due (R5)."""
    request = EntryRequest(account, amount_micros, "adjustment", reason, author, key, corrects)
    try:
        return await in_transaction(pool, lambda connection: book(connection, request))
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "corrects_an_entry":
            raise
        return Invalid(account, "corrects", f"{corrects} is no entry of this account")


async def book(connection: Connection, request: EntryRequest) -> BookAnswer:
    """Book one entry inside the caller's transaction. The caller retries unique violations (see `retry`)."""
    problem = _problem_of(request)
    if problem is not None:
        return problem
    row = await connection.fetchrow(query("accounts.lock"), request.account)
    if row is None:
        return NoSuchAccount(request.account)
    if request.key is not None:
        before = await connection.fetchrow(query("booking.by_key"), request.key)
        if before is not None:
            return repeat(request.account, request.input_hash(), before, row)
    excluded_micros = max(0, -request.amount_micros)
    credit_micros = row["credit_micros"] + request.amount_micros
    if not is_amount(credit_micros) or row["excluded_micros"] + excluded_micros > MAX_MICROS:
        return Invalid(request.account, "amount_micros", f"takes the account's total beyond {LARGEST}")
    return await _book(connection, request, row, excluded_micros)


async def _book(connection: Connection, request: EntryRequest, row: asyncpg.Record, excluded_micros: int) -> Booked:
    seq, currency, amount_micros = row["ledger_seq"] + 1, row["currency"], request.amount_micros
    entry_id = await connection.fetchval(
        query("booking.insert_entry"),
        *(request.account, seq, "entry", request.origin, request.author, request.reason),
        *(request.key, request.input_hash() if request.key is not None else None),
        None if request.detail is None else msgspec.json.encode(request.detail).decode(),
        request.corrects,
    )
    postings = entry_postings(request.account, row["home_partition"], currency, amount_micros, request.origin)
    await _insert_postings(connection, entry_id, postings)
    await connection.execute(query("booking.move"), request.account, excluded_micros, seq)
    posted = EntryPosted(
        account=request.account,
        ledger_seq=seq,
        timeline=row["timeline"],
        entry_id=str(entry_id),
        amount_micros=amount_micros,
        currency=currency,
        origin=request.origin,
        reason=request.reason,
    )
    await announce(connection, row["home_partition"], posted)
    balance_micros = row["credit_micros"] + amount_micros - row["used_micros"]
    return Booked(request.account, entry_id, seq, balance_micros, currency)


async def acknowledge_debits(
    pool: Pool, account: str, reason: str, *, author: str
) -> Acknowledged | NoSuchAccount | Invalid:
    """Let the debits other than usage count towards recharge from now on."""
    problem = text_problem(reason, empty=False)
    if problem is not None:
        return Invalid(account, "reason", problem)

    async def work(connection: Connection) -> Acknowledged | NoSuchAccount:
        row = await connection.fetchrow(query("accounts.lock"), account) if is_id(account) else None
        if row is None:
            return NoSuchAccount(account)
        seq, excluded_micros = row["ledger_seq"] + 1, row["excluded_micros"]
        detail = msgspec.json.encode({"excluded_micros": excluded_micros}).decode()
        await connection.fetchval(
            query("booking.insert_entry"), account, seq, "acknowledged", None, author, reason, None, None, detail, None
        )
        await connection.execute(query("booking.move"), account, -excluded_micros, seq)
        fact = DebitsAcknowledged(account=account, ledger_seq=seq, timeline=row["timeline"])
        await announce(connection, row["home_partition"], fact)
        return Acknowledged(account, seq, excluded_micros)

    return await in_transaction(pool, work)


async def announce(connection: Connection, partition: int, entry: LedgerEntry) -> None:
    """Put `entry` into the outbox; its ledger_seq was taken while holding the balance row."""
    await connection.execute(
        query("booking.announce"),
        *(partition, entry.account, entry.ledger_seq, _TYPES[type(entry)]),
        msgspec.json.encode(entry).decode(),
    )


async def _insert_postings(connection: Connection, entry_id: int, postings: tuple[Posting, ...]) -> None:
    """All lines of an entry in one statement: the database checks their sum at its end."""
    await connection.execute(
        query("booking.insert_postings"),
        entry_id,
        [posting.ledger_account.value for posting in postings],
        [posting.account for posting in postings],
        [posting.partition for posting in postings],
        [posting.currency for posting in postings],
        [posting.amount_micros for posting in postings],
    )


def repeat(account: str, input_hash: str, before: asyncpg.Record, row: asyncpg.Record) -> Booked | Conflict:
    """What a key that was used `before` answers: its entry, or that it asks for something else now."""
    if before["input_hash"] != input_hash:
        return Conflict(account, "key", f"entry {before['id']}", before["idempotency_key"])
    balance_micros = row["credit_micros"] - row["used_micros"]
    return Booked(account, before["id"], before["ledger_seq"], balance_micros, row["currency"], repeated=True)


def _problem_of(request: EntryRequest) -> Invalid | None:
    if not is_id(request.account):
        return Invalid(str(request.account)[:64], "id", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    if not is_amount(request.amount_micros) or request.amount_micros == 0:
        return Invalid(request.account, "amount_micros", f"must not be 0, and at most {LARGEST} up or down")
    if request.corrects is not None and not is_amount(request.corrects, 1):
        return Invalid(request.account, "corrects", "must be the number of an entry")
    texts = {"reason": request.reason, "author": request.author, "key": request.key}
    for field, value in texts.items():
        problem = None if value is None else text_problem(value, empty=False)
        if problem is not None:
            return Invalid(request.account, field, problem)
    return None
