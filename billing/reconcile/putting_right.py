"""What the reconciler does about an account: freeze, record, repair, release. Each is one transaction.

A difference freezes the account first. The ledger is the record, so where its own entries prove it whole the view is
what is wrong, and is derived anew at once; a ledger that is not whole is a person's to put right. The account is let go
by itself only where the cause is known (a repeated completion, S20); else when a person resolves the finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from billing.ledger.database import Connection, Pool
from billing.ledger.findings import NewFinding, record, resolve
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.view_correction import correct_view, prove_account
from billing.recharge.switches import freeze_in
from billing.reconcile.judge import Judgement
from billing.reconcile.report import Compared

AUTHOR = "billing/reconciler"
DIFFER = "books_differ"
LOST = "entries_lost"
BEHIND = "ledger_behind"
UNREADABLE = "record_unreadable"
OVERFLOW = "balance_overflow"
OF_UNKNOWN = (UNREADABLE, OVERFLOW)
"""The balance is unknown, so nobody is charged anyway; they end by themselves once the books agree."""
_KINDS: Mapping[Judgement, str] = {
    Judgement.DIFFERS: DIFFER,
    Judgement.LOST_IN_STORE: LOST,
    Judgement.LEDGER_BEHIND: BEHIND,
    Judgement.UNREADABLE: UNREADABLE,
    Judgement.OVERFLOWS: OVERFLOW,
}

Repair: TypeAlias = Literal["view", "none"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A new finding; `repair` says whether the view is being derived anew."""

    finding: int
    kind: str
    repair: Repair


@dataclass(frozen=True, slots=True)
class Known:
    """It was recorded before, an operator let it stand, or its entries are still on their way."""


async def record_and_repair(
    pool: Pool, found: Compared, judgement: Judgement, cause: Mapping[str, Any] | None, *, may_repair: bool
) -> Recorded | Known:
    """Freeze the account, record the finding once, and repair the view where that is safe. `cause` is what explains
    it, None when nothing does. Raises what asyncpg raises."""
    return await in_transaction(pool, lambda connection: _act(connection, found, judgement, cause, may_repair))


async def _act(
    connection: Connection,
    found: Compared,
    judgement: Judgement,
    cause: Mapping[str, Any] | None,
    may_repair: bool,
) -> Recorded | Known:
    account, difference_micros = found.account, _difference(found)
    if judgement is Judgement.DIFFERS:
        accepted = await connection.fetchval(query("findings.accepted_micros"), account)
        if accepted == difference_micros:
            return Known()
    if judgement is Judgement.LOST_IN_STORE and await connection.fetchval(query("findings.has_outbox"), account):
        return Known()  # the relay has yet to publish them
    if _KINDS[judgement] in OF_UNKNOWN:
        return await _unknown(connection, found, _KINDS[judgement])
    proof = await prove_account(connection, account)
    whole = proof is not None and proof.whole
    detail = {
        "seen": found.what,
        "currency": found.currency,
        "difference_micros": difference_micros,
        "ledger": _side(found.ledger),
        "store": _side(found.store),
        "ledger_is_whole": whole,
        "wrong": "unknown" if judgement is Judgement.LEDGER_BEHIND else "view" if whole else "ledger",
        "cause": None if cause is None else dict(cause),
    }
    new = NewFinding(_KINDS[judgement], account, found.partition, detail=detail)
    finding = await record(connection, new)
    if finding is None:
        return Known()
    if judgement is not Judgement.LOST_IN_STORE:
        reason = f"finding {finding}: {found.what}"
        await freeze_in(connection, account, frozen=True, author=AUTHOR, reason=reason)
    if not (may_repair and whole) or judgement is Judgement.LEDGER_BEHIND:
        return Recorded(finding, new.kind, "none")
    reason = "entries were lost on their way" if judgement is Judgement.LOST_IN_STORE else _why(cause)
    await correct_view(
        connection, account, finding=finding, delta_micros=-difference_micros, author=AUTHOR, reason=reason
    )
    return Recorded(finding, new.kind, "view")


async def _unknown(connection: Connection, found: Compared, kind: str) -> Recorded | Known:
    if found.ledger is None:
        return Known()  # an account of nobody's: nothing can be said of it
    detail = {"seen": found.what, "currency": found.currency, "ledger": _side(found.ledger)}
    finding = await record(connection, NewFinding(kind, found.account, found.partition, detail=detail))
    return Known() if finding is None else Recorded(finding, kind, "none")


async def release(pool: Pool, finding: int, account: str, kind: str) -> bool:
    """The books of the account agree again: end the finding, and let the account go unless another finding keeps it.
    False when it had ended before."""

    async def work(connection: Connection) -> bool:
        frozen_by_it = None if kind in OF_UNKNOWN else account
        return await release_in(
            connection, finding, frozen_by_it, author=AUTHOR, reason="the books agree again", detail={"kind": kind}
        )

    return await in_transaction(pool, work)


async def release_in(
    connection: Connection,
    finding: int,
    account: str | None,
    *,
    author: str,
    reason: str,
    action: Literal["agreed", "accepted", "booked", "seen"] = "agreed",
    detail: Mapping[str, Any] | None = None,
) -> bool:
    """The same in the caller's transaction, for whoever decides it."""
    if not await resolve(connection, finding, author=author, reason=reason, action=action, detail=detail):
        return False
    if account is None:
        return True
    other = await connection.fetchrow(query("findings.freezing"), account, finding)
    if other is None and await connection.fetchval(query("findings.frozen"), account):
        await freeze_in(connection, account, frozen=False, author=author, reason=f"finding {finding}: {reason}")
    return True


def _difference(found: Compared) -> int:
    """The store's balance minus the ledger's, as far as both have one."""
    if found.store is None or found.ledger is None:
        return 0
    return found.store.balance_micros - found.ledger.balance_micros


def _side(side: Any) -> dict[str, int] | None:
    if side is None:
        return None
    names = ("balance_micros", "ledger_seq", "last_charge_offset")
    return {name: getattr(side, name) for name in names}


def _why(cause: Mapping[str, Any] | None) -> str:
    if cause is None:
        return "the ledger's entries prove it whole, so the view was wrong"
    return f"session {cause['session']} was charged again at offset {cause['repeated_at']}"
