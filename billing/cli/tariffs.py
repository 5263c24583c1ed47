"""`billing tariff …`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from billing.cli.common import MOMENT, author, json_option, ledger, print_fields, print_rows, refuse, run
from billing.ledger.tariffs import (
    NEVER_MS,
    AlreadyLoaded,
    LoadAnswer,
    Loaded,
    OtherCurrency,
    TariffSummary,
    list_tariffs,
    load_tariff,
)
from billing.rating.tariff_csv import TariffRefused, parse_tariff
from billing.settings import Settings


@click.group()
def tariff() -> None:
    """Load and list tariffs."""


@tariff.command("load")
@click.argument("plan")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--currency", required=True, help="ISO 4217; a plan keeps its currency.")
@click.option("--effective", "effective_ms", type=MOMENT, help="When a later version begins to price.")
@click.option("--for-rerating", is_flag=True, help="A later version that never prices by itself: for `billing rerate`.")
@json_option
def load(plan: str, file: Path, *, currency: str, effective_ms: int | None, for_rerating: bool, as_json: bool) -> None:
    """Load a plan's next tariff version from a CSV file.

    The first version applies from the beginning of time; later ones from --effective, at least 600 s from now.
    """
    if for_rerating and effective_ms is not None:
        refuse("--for-rerating and --effective exclude each other")
    effective_ms = NEVER_MS if for_rerating else effective_ms
    rates = parse_tariff(file.read_bytes())
    if isinstance(rates, TariffRefused):
        refuse(f"{click.format_filename(file)}: {rates}")

    async def work() -> LoadAnswer:
        async with ledger(Settings.from_env()) as pool:
            return await load_tariff(pool, plan, rates, currency, author=author(), effective_ms=effective_ms)

    answer = run(work())
    match answer:
        case OtherCurrency(currency=stored):
            refuse(f"plan {plan} is in {stored}, not {currency}")
        case Loaded() | AlreadyLoaded():
            fields = {
                "plan": plan,
                "version": answer.version,
                **_effective(answer.effective_ms, as_json=as_json),
                "rates": len(rates),
                "loaded": isinstance(answer, Loaded),
            }
            print_fields(fields, as_json=as_json)
        case _:
            refuse(f"{answer.field} {answer.problem}")


@tariff.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every tariff version."""

    async def work() -> list[TariffSummary]:
        async with ledger(Settings.from_env()) as pool:
            return await list_tariffs(pool)

    rows = [
        {
            "plan": found.plan,
            "version": found.version,
            "currency": found.currency,
            **_effective(found.effective_ms, as_json=as_json),
            "rates": found.rates,
            "author": found.author,
        }
        for found in run(work())
    ]
    print_rows(rows, as_json=as_json, empty="no tariffs")


def _effective(effective_ms: int, *, as_json: bool) -> dict[str, Any]:
    """When a version takes effect; null for one that never does by itself."""
    if as_json:
        return {"effective_ms": None if effective_ms == NEVER_MS else effective_ms}
    if effective_ms in (0, NEVER_MS):
        return {"effective": "the beginning of time" if effective_ms == 0 else "never (for re-rating)"}
    return {"effective": f"{datetime.fromtimestamp(effective_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"}
