"""Accounts: reading them, and changing their terms. (Opening them is in `opening`, crediting in `booking`.)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from billing.ledger.booking import announce
from billing.ledger.catalogue_versions import announce_assignment, assign_plan, effective_problem
from billing.ledger.database import Connection, Pool, RollBack, fetch, fetchrow
from billing.ledger.queries import query
from billing.ledger.recharge_terms import recharge_problem
from billing.ledger.retry import in_transaction
from billing.ledger.terms import (
    Changed,
    Changes,
    Closed,
    CurrencyMismatch,
    Invalid,
    NoSuchAccount,
    SetAnswer,
    Unchanged,
    UnknownPlan,
    is_id,
    problem_of_changes,
    text_problem,
)
from schemas.common import AccountStatus
from schemas.ledger import AccountChanged

PAGE_SIZE = 1000
_TERMS = (
    *("plan", "credit_limit_micros", "recharge_below_micros", "recharge_by_micros", "customer", "payment_method"),
    *("daily_cap_micros", "status"),
)


@dataclass(frozen=True, slots=True)
class Account:
    """An account and its balance, of one moment. `plan` is the newest assigned, which may begin later; `placed_ms` when
    it moved to its partition (0: it was opened there)."""

    id: str
    currency: str
    plan: str
    home_partition: int
    usage_position: int
    credit_limit_micros: int
    recharge_below_micros: int | None
    recharge_by_micros: int | None
    daily_cap_micros: int | None
    customer: str | None
    payment_method: str | None
    status: AccountStatus
    opened_at: datetime
    placed_ms: int
    credit_micros: int
    used_micros: int
    excluded_micros: int
    ledger_seq: int
    last_charged_offset: int | None

    @property
    def balance_micros(self) -> int:
        return self.credit_micros - self.used_micros


async def show(pool: Pool, account: str) -> Account | NoSuchAccount:
    """One account with its balance."""
    row = await fetchrow(pool, query("accounts.show"), account) if is_id(account) else None
    return NoSuchAccount(account) if row is None else Account(**row)


async def list_accounts(pool: Pool, *, page_size: int = PAGE_SIZE) -> AsyncIterator[Account]:
    """Every account in id order, read page by page (not one moment for all of them)."""
    after = ""
    while True:
        rows = await fetch(pool, query("accounts.page"), after, page_size)
        for row in rows:
            yield Account(**row)
        if len(rows) < page_size:
            return
        after = rows[-1]["id"]


async def close(pool: Pool, account: str, *, author: str, reason: str = "") -> SetAnswer:
    """Close an account; usage that happened is still charged. There is no way back."""
    return await set_account(pool, account, Changes(status="closed"), author=author, reason=reason)


async def set_account(pool: Pool, account: str, changes: Changes, *, author: str, reason: str = "") -> SetAnswer:
    """Change terms. A new plan prices from `changes.effective_ms`, at least the lead from now (S47)."""
    problem = problem_of_changes(account, changes)
    wrong = text_problem(author, empty=False) or text_problem(reason)
    if problem is None and wrong is not None:
        problem = Invalid(account, "author or reason", wrong)
    if problem is not None:
        return problem
    try:
        return await in_transaction(
            pool, lambda connection: set_in(connection, account, changes, author=author, reason=reason)
        )
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "catalogue_lead":
            raise
        return effective_problem(account)


async def set_in(connection: Connection, account: str, changes: Changes, *, author: str, reason: str) -> SetAnswer:
    """As `set_account`, inside the caller's transaction; the input has been checked. May raise RollBack."""
    row = await connection.fetchrow(query("accounts.lock"), account)
    if row is None:
        return NoSuchAccount(account)
    new = {name: value for name, value in changes.given().items() if value != row[name]}
    if not new:
        return Unchanged(account, row["ledger_seq"])
    if row["status"] == "closed":
        return Closed(account)
    terms = {name: row[name] for name in _TERMS} | new
    incomplete = recharge_problem(account, row["currency"], terms)
    if incomplete is not None:
        return incomplete
    seq = row["ledger_seq"] + 1
    effective_ms = await _assign(connection, row, new["plan"], changes.effective_ms, seq) if "plan" in new else None
    await connection.execute(query("accounts.change"), account, *(terms[name] for name in _TERMS))
    detail = msgspec.json.encode({"from": {name: row[name] for name in new}, "to": new}).decode()
    await connection.fetchval(
        query("booking.insert_entry"), account, seq, "changed", None, author, reason, None, None, detail, None
    )
    await connection.execute(query("booking.move"), account, 0, seq)
    await announce(connection, row["home_partition"], _changed(row, terms, seq))
    return Changed(account, seq, effective_ms)


async def _assign(connection: Connection, row: asyncpg.Record, plan: str, effective_ms: int | None, seq: int) -> int:
    """The plan's next assignment; raises RollBack with the refusal."""
    currency = await connection.fetchval(query("accounts.plan_currency"), plan)
    if currency is None:
        raise RollBack(UnknownPlan(row["id"], plan))
    if currency != row["currency"]:
        raise RollBack(CurrencyMismatch(row["id"], plan, currency, row["currency"]))
    assignment = await assign_plan(connection, row, plan, effective_ms)
    await announce_assignment(connection, assignment, seq)
    return assignment.effective_ms


def _changed(row: asyncpg.Record, terms: dict[str, Any], seq: int) -> AccountChanged:
    return AccountChanged(
        account=row["id"],
        ledger_seq=seq,
        timeline=row["timeline"],
        plan=terms["plan"],
        credit_limit_micros=terms["credit_limit_micros"],
        recharge_below_micros=terms["recharge_below_micros"],
        status=terms["status"],
    )
