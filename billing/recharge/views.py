"""What the checks see of the ledger, read under the lock of the account's balance row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from billing.ledger.database import Connection, Pool, transaction
from billing.ledger.queries import query
from billing.ledger.terms import NoSuchAccount, is_id
from billing.recharge.policy import History, LedgerView, Limits, Terms
from schemas.common import AccountStatus

NO_ROOM_NEEDED = 2**63 - 1  # where the breaker's room is not asked


@dataclass(frozen=True, slots=True)
class AccountView:
    """One account at one moment by the ledger's clock (`now_ms`, ms since 1970 UTC). `history.breaker_room_micros` is
    only known once the breaker's row is locked (`with_breaker`)."""

    account: str
    currency: str
    home_partition: int
    timeline: str
    status: AccountStatus
    credit_limit_micros: int
    ledger_seq: int
    terms: Terms
    ledger: LedgerView
    history: History
    now_ms: int


async def read(pool: Pool, account: str) -> AccountView | NoSuchAccount:
    """The account as the checks would see it now; locks its balance row for a moment."""
    async with transaction(pool) as connection:
        return await locked(connection, account)


async def locked(connection: Connection, account: str) -> AccountView | NoSuchAccount:
    """Lock the account's balance row until the caller's transaction ends, and read everything after that."""
    row = await connection.fetchrow(query("accounts.lock"), account) if is_id(account) else None
    if row is None:
        return NoSuchAccount(account)
    around = await connection.fetchrow(query("recharge_checks.surroundings"), account, row["home_partition"])
    past = await connection.fetchrow(query("recharge_checks.history"), account)
    breaker_open = await connection.fetchval(query("recharge_checks.breaker_open"), row["currency"])
    if around is None or past is None:
        raise LookupError("the ledger is not migrated to this build's schema")
    return AccountView(
        account=account,
        currency=row["currency"],
        home_partition=row["home_partition"],
        timeline=row["timeline"],
        status=row["status"],
        credit_limit_micros=row["credit_limit_micros"],
        ledger_seq=row["ledger_seq"],
        terms=_terms(row, card_saved=around["card_saved"]),
        ledger=_ledger(row, around),
        history=_history(past, paused=around["paused"], breaker_open=bool(breaker_open)),
        now_ms=around["now_ms"],
    )


async def with_breaker(connection: Connection, view: AccountView, limits: Limits) -> AccountView:
    """Lock the breaker's row of the account's currency, after the account's, and count what it has seen."""
    await connection.execute(query("recharge_checks.ensure_breaker"), view.currency)
    breaker = await connection.fetchrow(query("recharge_checks.lock_breaker"), view.currency)
    used_micros: int = await connection.fetchval(query("recharge_checks.breaker_used"), view.currency)
    assert breaker is not None
    room_micros = limits.breaker_per_minute_micros - used_micros
    history = replace(view.history, breaker_open=breaker["open"], breaker_room_micros=room_micros)
    return replace(view, history=history)


def _terms(row: Any, *, card_saved: bool) -> Terms:
    return Terms(
        recharge_below_micros=row["recharge_below_micros"],
        recharge_by_micros=row["recharge_by_micros"],
        customer=row["customer"],
        payment_method=row["payment_method"],
        daily_cap_micros=row["daily_cap_micros"],
        closed=row["status"] == "closed",
        card_saved=card_saved,
    )


def _ledger(row: Any, around: Any) -> LedgerView:
    return LedgerView(
        credit_micros=row["credit_micros"],
        used_micros=row["used_micros"],
        excluded_debits_micros=row["excluded_micros"],
        usage_position=around["usage_position"],
        log_time_ms=around["log_time_ms"],
        frozen=around["frozen_reason"] is not None,
        frozen_reason=around["frozen_reason"] or "",
    )


def _history(past: Any, *, paused: bool, breaker_open: bool) -> History:
    return History(
        open_intent=None if past["open_intent"] is None else str(past["open_intent"]),
        count_today=past["count_today"],
        amount_today_micros=past["amount_today_micros"],
        newest_at_ms=past["newest_at_ms"],
        declines_in_a_row=past["declines_in_a_row"],
        last_decline_at_ms=past["last_decline_at_ms"],
        paused=paused,
        breaker_open=breaker_open,
        breaker_room_micros=NO_ROOM_NEEDED,
    )
