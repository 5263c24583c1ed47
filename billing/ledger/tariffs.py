"""Loading tariffs: effective-dated versions that are never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import asyncpg

from billing.ledger.catalogue_versions import DEFAULT_LEAD_MS, announce_tariff, effective_problem
from billing.ledger.database import Connection, Pool, fetch
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import Invalid, is_id, text_problem
from billing.money import is_currency
from schemas.catalogue import Rate, TariffVersion

_RATE_COLUMNS = tuple(Rate.__struct_fields__)

NEVER_MS = 2**53 - 1
"""When a version takes effect that prices nothing by itself: it is there to re-rate with."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A new version, in force from `effective_ms` (0: from the beginning of time)."""

    plan: str
    version: int
    effective_ms: int


@dataclass(frozen=True, slots=True)
class AlreadyLoaded:
    """The newest version has the same content already: nothing was done."""

    plan: str
    version: int
    effective_ms: int


@dataclass(frozen=True, slots=True)
class OtherCurrency:
    """A plan keeps its currency."""

    plan: str
    currency: str
    given: str


@dataclass(frozen=True, slots=True)
class TariffSummary:
    """One version as it is listed."""

    plan: str
    version: int
    currency: str
    effective_ms: int
    author: str
    loaded_at: datetime
    rates: int


LoadAnswer: TypeAlias = Loaded | AlreadyLoaded | OtherCurrency | Invalid


async def load_tariff(
    pool: Pool,
    plan: str,
    rates: Sequence[Rate],
    currency: str,
    *,
    author: str,
    effective_ms: int | None = None,
) -> LoadAnswer:
    """A plan's next version. The first applies from the beginning of time whatever is asked; later ones from
    `effective_ms` (default: as soon as the lead allows), at least 600 s after the commit. The newest version's rates
    once more are that version, unless another time is named."""
    problem = _problem_of(plan, rates, currency, author, effective_ms)
    if problem is not None:
        return problem
    ordered = tuple(sorted(rates, key=lambda rate: (rate.kind, rate.direction, rate.match)))
    try:
        return await in_transaction(
            pool,
            lambda connection: _load(
                connection, plan, ordered, currency=currency, author=author, effective_ms=effective_ms
            ),
        )
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "catalogue_lead":
            raise
        return effective_problem(plan)


def _problem_of(
    plan: str, rates: Sequence[Rate], currency: str, author: str, effective_ms: int | None
) -> Invalid | None:
    if not is_id(plan):
        return Invalid(str(plan)[:64], "plan", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    if not is_currency(currency):
        return Invalid(plan, "currency", "is not an ISO 4217 currency")
    if not rates:
        return Invalid(plan, "rates", "must not be empty")
    if effective_ms is not None and (type(effective_ms) is not int or not 0 <= effective_ms < 2**53):
        return Invalid(plan, "effective_ms", "must be milliseconds since 1970")
    problem = text_problem(author, empty=False)
    return None if problem is None else Invalid(plan, "author", problem)


async def _load(
    connection: Connection,
    plan: str,
    rates: tuple[Rate, ...],
    *,
    currency: str,
    author: str,
    effective_ms: int | None,
) -> LoadAnswer:
    await connection.execute(query("tariffs.lock_plan"), plan)
    newest = await connection.fetchrow(query("tariffs.newest"), plan)
    if newest is not None:
        if newest["currency"] != currency:
            return OtherCurrency(plan, newest["currency"], currency)
        anyhow = effective_ms is None and newest["effective_ms"] != NEVER_MS
        again = newest["version"] == 1 or anyhow or effective_ms == newest["effective_ms"]
        if again and await _rates_of(connection, plan, newest["version"]) == frozenset(rates):
            return AlreadyLoaded(plan, newest["version"], newest["effective_ms"])
    version = 1 if newest is None else newest["version"] + 1
    begins_ms = await connection.fetchval(
        query("tariffs.insert_version"),
        *(plan, version, currency, author, 0 if version == 1 else effective_ms, DEFAULT_LEAD_MS),
    )
    await connection.copy_records_to_table(
        "tariff_rates",
        columns=("plan", "version", *_RATE_COLUMNS),
        records=[(plan, version, *(getattr(rate, name) for name in _RATE_COLUMNS)) for rate in rates],
    )
    timeline = await connection.fetchval(query("tariffs.timeline"))
    await announce_tariff(
        connection,
        TariffVersion(
            timeline=timeline, plan=plan, version=version, currency=currency, effective_ms=begins_ms, rates=rates
        ),
    )
    return Loaded(plan, version, begins_ms)


async def _rates_of(connection: Connection, plan: str, version: int) -> frozenset[Rate]:
    return frozenset(Rate(**row) for row in await connection.fetch(query("tariffs.rates"), plan, version))


async def list_tariffs(pool: Pool) -> list[TariffSummary]:
    """Every version of every plan."""
    return [TariffSummary(**row) for row in await fetch(pool, query("tariffs.list"))]
