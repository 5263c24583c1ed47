"""Evaluations as they are kept: which checks were made, what they saw, and which said no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from billing.ledger.database import Connection, Pool, fetch
from billing.ledger.queries import query
from billing.recharge import metrics
from billing.recharge.policy import Refusal, Verdict

Stage: TypeAlias = Literal["open", "proof", "final", "suspend", "resume"]
"""When the checks were made: before an intent, at its proof, just before money moves; and around suspension."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`checks` are [{check, refusal, seen}, …] in their order, none after the one that refused. `times`: how often in a
    row within the hour; `checks` are then those of the last time."""

    id: int
    account: str
    intent: int | None
    stage: Stage
    refusal: str | None
    checks: list[dict[str, Any]]
    timeline: str
    times: int
    first_at: datetime
    last_at: datetime


def refusal_of(verdicts: Sequence[Verdict]) -> Refusal | None:
    """The first refusal, or None when all passed."""
    return next((verdict.refusal for verdict in verdicts if verdict.refusal is not None), None)


async def add(
    connection: Connection,
    account: str,
    stage: Stage,
    verdicts: Sequence[Verdict],
    *,
    timeline: str,
    intent: int | None = None,
) -> None:
    """Store an evaluation in the caller's transaction, which holds the account's balance row unless there is an
    intent: an equal refusal of the last hour is counted up instead."""
    refusal = refusal_of(verdicts)
    checks = as_json(verdicts)
    if refusal is not None and intent is None:
        repeated = await connection.fetchval(
            query("recharge_checks.repeat_evaluation"), account, stage, refusal.value, checks, timeline
        )
        if repeated is not None:
            return
    await connection.fetchval(
        query("recharge_checks.add_evaluation"),
        *(account, stage, None if refusal is None else refusal.value, checks, timeline, intent),
    )


def count(stage: Stage, verdicts: Sequence[Verdict]) -> None:
    """Count the refusal, if there is one; after the commit."""
    refusal = refusal_of(verdicts)
    if refusal is not None:
        metrics.refusals.labels(stage, refusal.value).inc()


def as_json(verdicts: Sequence[Verdict]) -> str:
    rows = [{"check": verdict.check, "refusal": verdict.refusal, "seen": dict(verdict.seen)} for verdict in verdicts]
    return msgspec.json.encode(rows).decode()


async def of_account(pool: Pool, account: str, limit: int = 100) -> list[Evaluation]:
    """The account's evaluations, the latest first."""
    return [_evaluation(row) for row in await fetch(pool, query("recharge_reads.evaluations"), account, limit)]


async def of_intent(pool: Pool, intent: int, limit: int = 100) -> list[Evaluation]:
    """The evaluations of one intent, the latest first."""
    rows = await fetch(pool, query("recharge_reads.evaluations_of_intent"), intent, limit)
    return [_evaluation(row) for row in rows]


def _evaluation(row: Any) -> Evaluation:
    return Evaluation(
        id=row["id"],
        account=row["account_id"],
        intent=row["intent_id"],
        stage=row["stage"],
        refusal=row["refusal"],
        checks=msgspec.json.decode(row["checks"]),
        timeline=row["timeline"],
        times=row["times"],
        first_at=row["first_at"],
        last_at=row["last_at"],
    )
