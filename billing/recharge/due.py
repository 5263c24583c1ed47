"""Due rows: which accounts a signal, or the sweep, asks to evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from billing.ledger.database import Connection, Pool, fetch, fetchrow, lease
from billing.ledger.queries import query
from billing.recharge import metrics
from billing.recharge.policy import Limits, Refusal, evaluate_again_ms

CLAIM_MS = 30_000
WELL_AGAIN_MS = 2_000
SWEEP_PAGE = 2_000
SWEEP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Due:
    """An account to evaluate now. `signal` numbers the newest request: the row stays when a newer one comes.
    `usage_position`: where the partition stood at the newest signal."""

    account: str
    signal: int
    usage_position: int
    signalled_ms: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A request to evaluate. `if_suspended`: only where the account is suspended (its balance is better)."""

    account: str
    usage_position: int
    if_suspended: bool = False


SweepKind: TypeAlias = Literal["low", "exhausted"]


@dataclass(frozen=True, slots=True)
class Swept:
    """`marked` accounts were due without a signal; the sweep goes on after account `last`, or is done (None)."""

    marked: int
    last: str | None


async def mark_due(pool: Pool, marks: Sequence[Mark]) -> None:
    """Ask to evaluate; accounts that the ledger does not have are left out."""
    async with lease(pool) as connection:
        await mark(connection, marks)


async def mark(connection: Connection, marks: Sequence[Mark]) -> None:
    """As `mark_due`, in the caller's transaction; rows in account order, so that no two wait for each other."""
    newest: dict[tuple[str, bool], Mark] = {}
    for each in marks:
        known = newest.get((each.account, each.if_suspended))
        if known is None or known.usage_position <= each.usage_position:
            newest[each.account, each.if_suspended] = each
    wanted = {account for account, if_suspended in newest if not if_suspended}
    rows = [m for (account, only), m in sorted(newest.items()) if not (only and account in wanted)]
    if rows:
        await connection.execute(
            query("recharge_due.mark"),
            [m.account for m in rows],
            [m.usage_position for m in rows],
            [m.if_suspended for m in rows],
        )


async def claim_due(pool: Pool, limit: int, claim_ms: int = CLAIM_MS) -> list[Due]:
    """Up to `limit` accounts whose time has come; they come again after `claim_ms` should this process die."""
    rows = await fetch(pool, query("recharge_due.claim"), limit, claim_ms)
    return [Due(row["account_id"], row["signals"], row["usage_position"], row["signalled_ms"]) for row in rows]


async def next_due_in_ms(pool: Pool) -> int | None:
    """How long until the first due row's time comes (0 or less: now); None without any."""
    row = await fetchrow(pool, query("recharge_due.next_in_ms"))
    in_ms: int | None = None if row is None else row[0]
    return in_ms


async def settle_refused(connection: Connection, due: Due, refusal: Refusal) -> None:
    """The account was refused: evaluate it again when that may have changed, or drop it until the next signal."""
    times = await connection.fetchval(query("recharge_due.refused_times"), due.account, refusal.value)
    again_ms = evaluate_again_ms(refusal, times or 1)
    if again_ms is None:
        await connection.execute(query("recharge_due.drop"), due.account, due.signal)
    else:
        await connection.execute(query("recharge_due.again"), due.account, again_ms, due.signal)


async def settle_opened(connection: Connection, due: Due, limits: Limits) -> None:
    """The account is being recharged: look again when the next one would be allowed."""
    await connection.execute(query("recharge_due.again"), due.account, limits.minimum_interval_ms, due.signal)


async def look_again(pool: Pool, account: str, in_ms: int) -> None:
    """Evaluate the account in `in_ms` at the latest: its intent closed without a charge for a reason that may pass."""
    await fetchrow(pool, query("recharge_due.later"), account, in_ms)


async def store_is_well(pool: Pool) -> None:
    """Evaluate soon what was refused because the balance store was not to be trusted."""
    await fetchrow(pool, query("recharge_due.store_is_well"), Refusal.STORE_UNHEALTHY.value, WELL_AGAIN_MS)


async def sweep(pool: Pool, kind: SweepKind, after: str = "", page: int = SWEEP_PAGE) -> Swept:
    """One page of the ledger's accounts, in id order: mark those that are below their threshold (`low`), or open and
    exhausted (`exhausted`), and that nobody has asked for."""
    async with lease(pool) as connection:
        row = await connection.fetchrow(query(f"recharge_due.sweep_{kind}"), after, page, timeout=SWEEP_TIMEOUT_S)
    assert row is not None
    if row["marked"]:
        metrics.swept.labels(kind).inc(row["marked"])
    return Swept(row["marked"], row["last"])
