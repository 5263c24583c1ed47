"""The pause switch, the breakers and freezes: what people use to stop charging, and to let it go on (R4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from billing.ledger.database import Connection, Pool, fetch, fetchrow
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import NoSuchAccount, is_id, text_problem
from billing.money import format_micros
from billing.recharge import metrics
from billing.recharge.policy import Limits

Action = Literal["pause", "resume", "trip", "reset", "freeze", "unfreeze", "forgive"]


@dataclass(frozen=True, slots=True)
class Switch:
    """Paused: nothing new is charged, and what was not yet confirmed is withdrawn. `reconciled`: the ledger's timeline
    is one whose charges are known here (S28)."""

    paused: bool
    author: str | None
    reason: str | None
    changed_at: datetime | None
    timeline: str
    reconciled: bool


@dataclass(frozen=True, slots=True)
class Breaker:
    """One currency's. `used_micros` moved in the last minute, or may still move; `limit_micros` is the most."""

    currency: str
    open: bool
    used_micros: int
    limit_micros: int
    tripped_at: datetime | None
    tripped_by: str | None
    reset_at: datetime | None
    reset_by: str | None
    reset_reason: str | None


@dataclass(frozen=True, slots=True)
class NotAttributed:
    """Who and why must be said."""

    field: str
    problem: str


async def switch(pool: Pool) -> Switch:
    """The pause switch as it is."""
    row = await fetchrow(pool, query("recharge_switches.switch"))
    if row is None:
        raise LookupError("the ledger has no identity: run `billing migrate`")
    metrics.paused.set(row["paused"])
    return Switch(
        paused=row["paused"],
        author=row["author"],
        reason=row["reason"],
        changed_at=row["changed_at"],
        timeline=row["timeline"],
        reconciled=row["reconciled_timeline"] == row["timeline"],
    )


async def pause(pool: Pool, *, author: str, reason: str) -> bool | NotAttributed:
    """Stop charging; False when it was stopped already."""
    return await _set_paused(pool, paused=True, author=author, reason=reason)


async def resume(pool: Pool, *, author: str, reason: str) -> bool | NotAttributed:
    """Let charging go on; False when it went on already."""
    return await _set_paused(pool, paused=False, author=author, reason=reason)


async def _set_paused(pool: Pool, *, paused: bool, author: str, reason: str) -> bool | NotAttributed:
    problem = _unattributed(author, reason)
    if problem is not None:
        return problem

    async def work(connection: Connection) -> bool:
        changed = await connection.fetchval(query("recharge_switches.set_paused"), paused, author, reason)
        if changed is not None:
            await _remember(connection, "pause" if paused else "resume", "all", author, reason)
        return changed is not None

    return await in_transaction(pool, work)


async def breakers(pool: Pool, limits: Limits) -> list[Breaker]:
    """Every currency that was ever charged, in order."""
    rows = await fetch(pool, query("recharge_switches.breakers"))
    for row in rows:
        metrics.breaker_open.labels(row["currency"]).set(row["open"])
    return [Breaker(**row, limit_micros=limits.breaker_per_minute_micros) for row in rows]


async def breaker_reset(
    pool: Pool, *, author: str, reason: str, currency: str | None = None
) -> list[str] | NotAttributed:
    """Close the open breakers (of one currency, or all) and count anew; returns which were open."""
    problem = _unattributed(author, reason)
    if problem is not None:
        return problem

    async def work(connection: Connection) -> list[str]:
        rows = await connection.fetch(query("recharge_switches.reset"), currency, author, reason)
        for row in rows:
            await _remember(connection, "reset", row["currency"], author, reason)
        return sorted(row["currency"] for row in rows)

    return await in_transaction(pool, work)


async def trip(connection: Connection, currency: str, account: str, limits: Limits) -> None:
    """Open the breaker, in the transaction that holds its row."""
    await connection.execute(query("recharge_checks.trip"), currency, account)
    limit = format_micros(limits.breaker_per_minute_micros, currency)
    why = f"a charge of account {account} would have exceeded {limit} {currency} in a minute"
    await _remember(connection, "trip", currency, "billing/recharge", why)


async def set_frozen(
    pool: Pool, account: str, *, frozen: bool, author: str, reason: str
) -> NoSuchAccount | NotAttributed | None:
    """Neither charge nor suspend the account until it is let go again: the two books differ, say."""
    action: Action = "freeze" if frozen else "unfreeze"
    arguments = (frozen, author, reason)
    return await _on_account(
        pool, account, action, author=author, reason=reason, name="set_frozen", arguments=arguments
    )


async def freeze_in(connection: Connection, account: str, *, frozen: bool, author: str, reason: str) -> bool:
    """As `set_frozen`, in the caller's transaction; False when there is no such account."""
    if await connection.fetchval(query("recharge_switches.set_frozen"), account, frozen, author, reason) is None:
        return False
    await _remember(connection, "freeze" if frozen else "unfreeze", account, author, reason)
    return True


async def forgive(pool: Pool, account: str, *, author: str, reason: str) -> NoSuchAccount | NotAttributed | None:
    """Let the account's declines so far count no more, as a new payment method does by itself."""
    return await _on_account(pool, account, "forgive", author=author, reason=reason, name="forgive")


async def _on_account(
    pool: Pool, account: str, action: Action, *, author: str, reason: str, name: str, arguments: tuple[object, ...] = ()
) -> NoSuchAccount | NotAttributed | None:
    problem = _unattributed(author, reason)
    if problem is not None or not is_id(account):
        return problem or NoSuchAccount(account)

    async def work(connection: Connection) -> NoSuchAccount | None:
        if await connection.fetchval(query(f"recharge_switches.{name}"), account, *arguments) is None:
            return NoSuchAccount(account)
        await _remember(connection, action, account, author, reason)
        return None

    return await in_transaction(pool, work)


async def reconciled(pool: Pool, *, author: str, reason: str) -> NotAttributed | None:
    """The charges of the ledger's present timeline have been reconciled with the gateway's: charge again."""
    problem = _unattributed(author, reason)
    if problem is not None:
        return problem

    async def work(connection: Connection) -> None:
        await connection.execute(query("recharge_switches.reconciled"))
        await _remember(connection, "unfreeze", "all", author, reason)

    return await in_transaction(pool, work)


async def _remember(connection: Connection, action: Action, subject: str, author: str, reason: str) -> None:
    await connection.execute(query("recharge_switches.add_action"), action, subject, author, reason)


def _unattributed(author: str, reason: str) -> NotAttributed | None:
    for field, value in (("by", author), ("reason", reason)):
        problem = text_problem(value, empty=False)
        if problem is not None:
            return NotAttributed(field, problem)
    return None
