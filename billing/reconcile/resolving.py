"""What an operator does about a finding. Each way is one transaction that says who and why; a finding about the books
ends, and its account is let go, only when the books are seen to agree, or the operator says why they need not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from billing.balance.calls import Functions
from billing.ledger.booking import Booked, EntryRequest, book
from billing.ledger.database import Connection, Pool, RollBack, lease
from billing.ledger.findings import Action, Finding, show
from billing.ledger.incarnations import read_identity
from billing.ledger.retry import in_transaction
from billing.ledger.terms import MAX_TEXT, Conflict, Invalid, NoSuchAccount, text_problem
from billing.ledger.view_correction import correct_view, prove_account, recompute
from billing.reconcile.compare import Different, Equal
from billing.reconcile.health import expecting_reader
from billing.reconcile.look import Looker
from billing.reconcile.putting_right import BEHIND, DIFFER, LOST, OF_UNKNOWN, release_in
from billing.reconcile.rebooking import booking_of
from billing.reconcile.report import Compared
from billing.settings import Settings
from billing.usage.partitioner import home_partition

OF_THE_BOOKS = (DIFFER, LOST, BEHIND, *OF_UNKNOWN)
POLL_S = 0.2

Way: TypeAlias = Literal["look", "repair_view", "correct_ledger", "recompute_ledger", "accept", "book"]
"""look: resolve if nothing more has to be done; the others are the command's options."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decides what, and why. `amount_micros` only with correct_ledger: what the customer's balance changes by."""

    way: Way
    author: str
    reason: str
    amount_micros: int = 0


@dataclass(frozen=True, slots=True)
class Resolved:
    """The finding ended. `ledger_seq` is the newest entry that was booked for it, None when none was; the customer's
    balance has changed by `amount_micros`."""

    finding: int
    action: Action
    ledger_seq: int | None
    amount_micros: int = 0
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class NotResolved:
    """It stays open, because of `reason`, or of the ledger's `refusal`. What was booked stays booked; the same command
    again goes on."""

    reason: str
    refusal: Conflict | NoSuchAccount | Invalid | None = None


async def resolve_finding(
    pool: Pool, functions: Functions, settings: Settings, finding: int, decision: Decision, *, wait_s: float
) -> Resolved | NotResolved:
    """Do what was decided; waits at most `wait_s` for the books to agree. Raises what asyncpg raises."""
    found = await show(pool, finding)
    refusal = _refusal(finding, found, decision)
    if refusal is not None or found is None:
        return NotResolved(refusal or "")
    if decision.way == "book":
        return await _book(pool, found, decision)
    if found.kind not in OF_THE_BOOKS or found.account is None:
        return await _end(pool, found, decision, "seen")
    return await _of_the_books(pool, functions, settings, found, decision, wait_s=wait_s)


async def _of_the_books(
    pool: Pool, functions: Functions, settings: Settings, found: Finding, decision: Decision, *, wait_s: float
) -> Resolved | NotResolved:
    account, seq = found.account or "", None
    wanted = decision.way in ("repair_view", "correct_ledger", "recompute_ledger")
    if decision.way == "repair_view":
        before = await compare_account(pool, functions, settings, account, wait_s=min(1.0, wait_s))
        wanted = before is None or not isinstance(before.comparison, Equal)
    if wanted:
        answer = await _put_right(pool, found, decision)
        if isinstance(answer, NotResolved):
            return answer
        seq = answer
    seen = await _until_equal(pool, functions, settings, account, 0.0 if decision.way == "accept" else wait_s)
    if seen is not None and isinstance(seen.comparison, Equal):
        return await _end(pool, found, decision, "agreed", seq=seq)
    if decision.way == "accept":
        return await _end(pool, found, decision, "accepted", detail=_difference(seen))
    why = "the ledger is not migrated" if seen is None else seen.what
    return NotResolved(f"the books of {account} do not agree: {why}")


def _refusal(number: int, found: Finding | None, decision: Decision) -> str | None:
    if found is None:
        return f"there is no finding {number}"
    if found.resolution is not None:
        return f"finding {number} was resolved by {found.resolution.author}: {found.resolution.reason}"
    for name, value in (("by", decision.author), ("reason", decision.reason)):
        if problem := text_problem(value, empty=False):
            return f"--{name} {problem}"
    return _unfit(number, found, decision)


def _unfit(number: int, found: Finding, decision: Decision) -> str | None:
    """Why this way is none for this kind of finding."""
    of_the_books = found.kind in OF_THE_BOOKS
    if decision.way in ("repair_view", "correct_ledger", "recompute_ledger", "accept") and not of_the_books:
        return f"finding {number} ({found.kind}) is not about the two books of an account"
    if decision.way == "accept" and found.kind in OF_UNKNOWN:
        return f"finding {number} ({found.kind}): the balance is unknown, so there is no difference to let stand"
    if decision.way == "book" and booking_of(found, decision.author, decision.reason) is None:
        return f"finding {number} ({found.kind}) names nothing that could be booked"
    return None


async def _put_right(pool: Pool, found: Finding, decision: Decision) -> int | NotResolved:
    """The repair's entries in one transaction; the newest ledger_seq."""
    account = found.account or ""
    author, reason = decision.author, f"finding {found.id}: {decision.reason}"[:MAX_TEXT]

    async def work(connection: Connection) -> int | NotResolved:
        if decision.way == "recompute_ledger":
            await recompute(connection, account, finding=found.id, author=author, reason=reason)
        proof = await prove_account(connection, account)
        if proof is None:
            raise RollBack(NotResolved(f"the ledger has no account {account!r}"))
        if not proof.whole:
            hint = "its entries are missing" if decision.way == "recompute_ledger" else "use --recompute-ledger"
            raise RollBack(NotResolved(f"the ledger's balance of {account} is not what its own entries say: {hint}"))
        if decision.way == "correct_ledger":
            key = f"finding:{found.id}:{decision.amount_micros}"
            request = EntryRequest(account, decision.amount_micros, "adjustment", reason, author, key)
            answer = await book(connection, request)
            if not isinstance(answer, Booked):
                raise RollBack(NotResolved("the ledger refuses the entry", answer))
        delta_micros = -int(found.detail.get("difference_micros") or 0) + decision.amount_micros
        seq = await correct_view(
            connection, account, finding=found.id, delta_micros=delta_micros, author=author, reason=reason
        )
        assert seq is not None  # it was proved above
        return seq

    return await in_transaction(pool, work)


async def _book(pool: Pool, found: Finding, decision: Decision) -> Resolved | NotResolved:
    request = booking_of(found, decision.author, decision.reason)
    assert request is not None  # looked at before

    async def work(connection: Connection) -> Resolved | NotResolved:
        answer = await book(connection, request)
        if not isinstance(answer, Booked):
            return NotResolved("the ledger refuses the entry", answer)
        detail = {"entry": answer.entry_id, "amount_micros": request.amount_micros}
        await _release(connection, found, decision, "booked", detail)
        return Resolved(found.id, "booked", answer.ledger_seq, request.amount_micros, answer.currency)

    return await in_transaction(pool, work)


async def _end(
    pool: Pool,
    found: Finding,
    decision: Decision,
    action: Action,
    *,
    seq: int | None = None,
    detail: dict[str, Any] | None = None,
) -> Resolved:
    async def work(connection: Connection) -> Resolved:
        await _release(connection, found, decision, action, detail)
        return Resolved(found.id, action, seq, 0 if seq is None else decision.amount_micros, found.currency)

    return await in_transaction(pool, work)


async def _release(
    connection: Connection, found: Finding, decision: Decision, action: Action, detail: dict[str, Any] | None
) -> None:
    await release_in(
        connection,
        found.id,
        None if found.kind in OF_UNKNOWN else found.account,
        author=decision.author,
        reason=decision.reason,
        action=action,
        detail=detail,
    )


async def _until_equal(
    pool: Pool, functions: Functions, settings: Settings, account: str, wait_s: float
) -> Compared | None:
    """The account's two sides as soon as they are equal, or as they are after `wait_s`."""
    until = time.monotonic() + wait_s
    return await _poll(lambda: compare_account(pool, functions, settings, account, wait_s=1.0), until)


async def _poll(look: Callable[[], Awaitable[Compared | None]], until: float) -> Compared | None:
    while True:
        seen = await look()
        if seen is None or isinstance(seen.comparison, Equal) or time.monotonic() >= until:
            return seen
        await asyncio.sleep(POLL_S)


async def compare_account(
    pool: Pool, functions: Functions, settings: Settings, account: str, *, wait_s: float
) -> Compared | None:
    """One account in both books, now; None where the ledger is not migrated. Raises what asyncpg raises."""
    async with lease(pool) as connection:
        identity = await read_identity(connection)
        if identity is None:
            return None
        looker = Looker(expecting_reader(functions, settings.topics, identity), settings.topics.usage)
        partition = home_partition(account, identity.partitions)
        look = await looker.closer(connection, partition, [account], time.monotonic() + wait_s)
        return look.found[0]


def _difference(seen: Compared | None) -> dict[str, Any] | None:
    if seen is not None and isinstance(seen.comparison, Different):
        return {"difference_micros": seen.comparison.amount_micros}
    return None
