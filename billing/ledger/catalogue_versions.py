"""What tariffs and plan assignments have in common: the lead, and the way to billing.tariffs."""

from __future__ import annotations

import asyncpg
import msgspec

from billing.ledger.database import Connection
from billing.ledger.queries import query
from billing.ledger.terms import Invalid
from billing.rating.catalogue import LEAD_MS
from schemas.catalogue import PlanAssignment, TariffVersion, catalogue_key

DEFAULT_LEAD_MS = LEAD_MS + 60_000
"""When a version takes effect unless said otherwise. The rule is LEAD_MS, verified at commit by the database
(`catalogue_lead`); the rest is time to get there."""


async def assign_plan(
    connection: Connection, account: asyncpg.Record, plan: str, effective_ms: int | None
) -> PlanAssignment:
    """The next assignment of an account whose row (of `accounts.lock`) is locked."""
    row = await connection.fetchrow(query("accounts.assign_plan"), account["id"], plan, effective_ms, DEFAULT_LEAD_MS)
    assert row is not None
    return PlanAssignment(
        timeline=account["timeline"],
        account=account["id"],
        version=row["version"],
        plan=plan,
        effective_ms=row["effective_ms"],
        home_partition=account["home_partition"],
        usage_position=account["usage_position"],
        placed_ms=account["placed_ms"],
    )


async def announce_assignment(connection: Connection, assignment: PlanAssignment, ledger_seq: int) -> None:
    """For the relay: to be published once the account's entries up to `ledger_seq` have been."""
    await _announce(connection, assignment, "catalogue.assignment.v1", assignment.account, ledger_seq)


async def announce_tariff(connection: Connection, tariff: TariffVersion) -> None:
    """For the relay: to be published before anything that was committed later."""
    await _announce(connection, tariff, "catalogue.tariff.v1", None, None)


async def _announce(
    connection: Connection,
    message: PlanAssignment | TariffVersion,
    type_: str,
    account: str | None,
    ledger_seq: int | None,
) -> None:
    data = msgspec.json.encode(message).decode()
    await connection.execute(
        query("booking.announce_catalogue"), catalogue_key(message).decode(), type_, data, account, ledger_seq
    )


def effective_problem(subject: str) -> Invalid:
    """The answer where the database found a version to take effect too soon."""
    return Invalid(subject, "effective_ms", f"must be at least {LEAD_MS // 1000} s after now")
