"""Opening accounts, one or a hundred thousand: the same set-based statements in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

import asyncpg
import msgspec

from billing.ledger.database import Connection, Pool, RollBack, fetchrow
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.ledger.recharge_terms import recharge_problem
from billing.ledger.retry import in_transaction
from billing.ledger.terms import (
    AlreadyOpen,
    Conflict,
    CurrencyMismatch,
    Imported,
    ImportRefused,
    Invalid,
    NewAccount,
    OpenAnswer,
    Opened,
    UnknownPlan,
    problem_of,
    text_problem,
)
from billing.usage.partitioner import home_partition

_COLUMNS = (
    *("ord", "id", "currency", "plan", "credit_micros", "credit_limit_micros", "recharge_below_micros"),
    *("recharge_by_micros", "customer", "payment_method", "daily_cap_micros", "home_partition", "input"),
    "usage_position",
)
IMPORT_TIMEOUT_S = 300.0


async def open_account(pool: Pool, new: NewAccount, *, author: str, reason: str = "") -> OpenAnswer:
    """Open an account at the ledger's usage position of its home partition. A repeat with the same input is
    AlreadyOpen, whatever happened to the account since. Raises what asyncpg raises."""
    answer = await import_accounts(pool, [new], author=author, reason=reason)
    if isinstance(answer, ImportRefused):
        return answer.refusal
    row = await fetchrow(pool, query("accounts.opened_at"), new.id)
    if row is None:
        raise LookupError(f"account {new.id} is gone")
    outcome = Opened if answer.opened else AlreadyOpen
    return outcome(new.id, row["home_partition"], row["usage_position"])


async def import_accounts(
    pool: Pool,
    accounts: Sequence[NewAccount],
    *,
    author: str,
    reason: str = "",
    usage_positions: Mapping[str, int] | None = None,
) -> Imported | ImportRefused:
    """Open all of them or none; identical repeats are fine, inside the input too. Names the first row that is not.
    Settlements wait while it commits (a few seconds for 100,000). `usage_positions`: where accounts that the ledger has
    forgotten were opened before (S28)."""
    refused = _first_refusal(accounts, author, reason)
    if refused is not None:
        return refused
    before = usage_positions or {}
    return await in_transaction(pool, lambda connection: _import(connection, accounts, before, author, reason))


def _first_refusal(accounts: Sequence[NewAccount], author: str, reason: str) -> ImportRefused | None:
    """What can be said without the ledger."""
    seen: dict[str, NewAccount] = {}
    for row, new in enumerate(accounts, start=1):
        problem = problem_of(new) or recharge_problem(new.id, new.currency, asdict(new))
        if problem is None and (wrong := text_problem(author, empty=False) or text_problem(reason)):
            problem = Invalid(new.id, "author or reason", wrong)
        if problem is not None:
            return ImportRefused(row, problem)
        if seen.setdefault(new.id, new) != new:
            stored = msgspec.json.decode(seen[new.id].as_json())
            return ImportRefused(row, _conflict(new, stored))
    return None


async def _import(
    connection: Connection, accounts: Sequence[NewAccount], before: Mapping[str, int], author: str, reason: str
) -> Imported:
    await connection.execute(query("accounts.create_incoming"))
    await connection.execute(f"set local statement_timeout = '{int(IMPORT_TIMEOUT_S)}s'")
    partitions = await connection.fetchval(query("accounts.partitions"))
    distinct = await _copy(connection, accounts, before, partitions)
    await _refuse_conflicts(connection, accounts)
    known = await connection.fetch(query("accounts.drop_known"), timeout=IMPORT_TIMEOUT_S)
    await _refuse_missing_plans(connection)
    opened = distinct - len(known)
    if opened:
        await _open(connection, author, reason, partitions)
    return Imported(opened, len(accounts) - opened)


async def _copy(
    connection: Connection, accounts: Sequence[NewAccount], before: Mapping[str, int], partitions: int
) -> int:
    first: dict[str, tuple[Any, ...]] = {}
    for row, new in enumerate(accounts, start=1):
        if new.id not in first:
            first[new.id] = (*_incoming(row, new, partitions), before.get(new.id))
    await connection.copy_records_to_table(
        "incoming", schema_name="pg_temp", records=first.values(), columns=_COLUMNS, timeout=IMPORT_TIMEOUT_S
    )
    if len(first) > 1000:
        await connection.execute("analyze pg_temp.incoming")  # so that the joins below are planned for many rows
    return len(first)


def _incoming(row: int, new: NewAccount, partitions: int) -> tuple[Any, ...]:
    return (
        *(row, new.id, new.currency, new.plan, new.credit_micros, new.credit_limit_micros),
        *(new.recharge_below_micros, new.recharge_by_micros, new.customer, new.payment_method),
        *(new.daily_cap_micros, home_partition(new.id, partitions), new.as_json()),
    )


async def _refuse_conflicts(connection: Connection, accounts: Sequence[NewAccount]) -> None:
    row = await connection.fetchrow(query("accounts.first_conflict"), timeout=IMPORT_TIMEOUT_S)
    if row is not None:
        given = accounts[row["ord"] - 1]
        raise RollBack(ImportRefused(row["ord"], _conflict(given, msgspec.json.decode(row["stored"]))))


async def _refuse_missing_plans(connection: Connection) -> None:
    row = await connection.fetchrow(query("accounts.first_without_plan"), timeout=IMPORT_TIMEOUT_S)
    if row is None:
        return
    if row["plan_currency"] is None:
        _refuse(row["ord"], UnknownPlan(row["id"], row["plan"]))
    _refuse(row["ord"], CurrencyMismatch(row["id"], row["plan"], row["plan_currency"], row["currency"]))


def _refuse(row: int, refusal: UnknownPlan | CurrencyMismatch) -> NoReturn:
    raise RollBack(ImportRefused(row, refusal))


async def _open(connection: Connection, author: str, reason: str, partitions: int) -> None:
    """The slow part first, then the positions are locked, then what depends on them."""

    async def step(name: str, *arguments: object) -> None:
        await connection.execute(query(f"accounts.{name}"), *arguments, timeout=IMPORT_TIMEOUT_S)

    await step("book_openings", author, reason)
    await step("assign_first_plans")
    await step("lock_positions", USAGE_TOPIC)
    if await connection.fetchval(query("accounts.partitions")) != partitions:  # added since the homes were worked out
        raise asyncpg.SerializationError("partitions were added meanwhile")  # which runs the transaction again
    await step("insert_accounts", USAGE_TOPIC)
    await step("insert_balances")
    await step("post_openings")
    await step("announce_openings")
    await step("announce_first_plans")


def _conflict(given: NewAccount, stored: dict[str, Any]) -> Conflict:
    """The first field in which the input differs from what the account was opened with."""
    now = msgspec.json.decode(given.as_json())
    for field in NewAccount.__dataclass_fields__:
        if now.get(field) != stored.get(field):
            return Conflict(given.id, field, stored.get(field), now.get(field))
    return Conflict(given.id, "input", stored, now)
