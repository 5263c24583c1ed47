"""A re-rating as it is printed: before it is booked, and after."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from billing.cli.common import print_json
from billing.cli.tables import table
from billing.ledger.rerate import Booked, Difference, Span
from billing.ledger.rerate_apply import Applied
from billing.money import format_micros

SHOWN = 20


@dataclass(slots=True)
class Preview:
    """The accounts with a difference, or with sessions that have no price; sums over all."""

    span: Span
    currency: str
    before: Booked
    accounts: list[Difference]
    looked_at: int = 0
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    span: Span
    currency: str
    applied: Applied


def _when(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _fields(each: Difference) -> dict[str, Any]:
    return {
        "account": each.account,
        "sessions": each.sessions,
        "changed": each.changed,
        "unpriced": each.unpriced,
        "cost_micros": each.cost_micros,
        "given_back_micros": each.given_back_micros,
        "charged_micros": each.charged_micros,
        "difference_micros": each.difference_micros,
    }


_SUMS = ("changed", "unpriced", "given_back_micros", "charged_micros", "difference_micros")


def _sums(found: Preview) -> dict[str, int]:
    rows = [_fields(each) for each in found.accounts]
    return {name: sum(row[name] for row in rows) for name in _SUMS}


def _span_fields(span: Span, currency: str) -> dict[str, Any]:
    return {
        "plan": span.plan,
        "tariff_version": span.version,
        "from": _when(span.from_ms),
        "to": _when(span.to_ms),
        "currency": currency,
    }


def preview_fields(found: Preview) -> dict[str, Any]:
    return {
        **_span_fields(found.span, found.currency),
        "applied": False,
        "sessions": found.sessions,
        **_sums(found),
        "booked_before": found.before.sessions,
        "accounts": [_fields(each) for each in found.accounts],
    }


def preview_csv(found: Preview) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("cost", "given_back", "charged", "difference")
    writer.writerow(("account", "currency", "sessions", "changed", "unpriced", *names))
    for each in found.accounts:
        fields = _fields(each)
        amounts = (format_micros(fields[f"{name}_micros"], found.currency) for name in names)
        writer.writerow((each.account, found.currency, each.sessions, each.changed, each.unpriced, *amounts))
    return out.getvalue()


def print_preview(found: Preview, *, all_: bool) -> None:
    span, sums = found.span, _sums(found)

    def money(amount_micros: int) -> str:
        return format_micros(amount_micros, found.currency)

    click.echo(
        f"Dry run: plan {span.plan} by tariff version {span.version}, {_when(span.from_ms)} to {_when(span.to_ms)}"
    )
    if found.before.sessions:
        click.echo(f"Re-rating {found.before.rerate} has corrected {found.before.sessions:,} sessions of it before.")
    click.echo(
        f"{found.sessions:,} sessions of {found.looked_at:,} accounts are priced again, {sums['changed']:,} differ."
    )
    if sums["unpriced"]:
        click.echo(f"{sums['unpriced']:,} have no price by this version and would stay as they are.")
    if not found.accounts:
        return
    largest = sorted(found.accounts, key=lambda each: (-abs(each.difference_micros), each.account))
    shown = largest if all_ else largest[:SHOWN]
    rows = [
        {
            "account": each.account,
            "sessions": each.sessions,
            "changed": each.changed,
            **({"no price": each.unpriced} if sums["unpriced"] else {}),
            "cost now": money(each.cost_micros),
            "given back": money(each.given_back_micros),
            "charged": money(each.charged_micros),
            "balance changes by": money(each.difference_micros),
        }
        for each in shown
    ]
    click.echo()
    cells = [tuple(rows[0]), *(tuple(map(str, row.values())) for row in rows)]
    for line in table(cells, right=tuple(range(1, len(rows[0])))):
        click.echo(line)
    if len(shown) < len(largest):
        click.echo(f"… and {len(largest) - len(shown):,} more (--all, --format csv)")
    click.echo()
    click.echo(
        f"In all {money(sums['given_back_micros'])} {found.currency} given back,"
        f" {money(sums['charged_micros'])} charged in addition. Nothing is booked; --apply books it."
    )


def print_done(done: Done, *, as_json: bool) -> None:
    total, applied = done.applied.in_all, done.applied
    if as_json:
        fields = {
            **_span_fields(done.span, done.currency),
            "applied": True,
            "rerate": total.rerate,
            "corrected_now": applied.now,
            "unpriced": applied.unpriced,
            "sessions": total.sessions,
            "accounts": total.accounts,
            "entries": total.entries,
            "given_back_micros": total.given_back_micros,
            "charged_micros": total.charged_micros,
            "difference_micros": total.given_back_micros - total.charged_micros,
        }
        print_json(fields)
        return
    none = "" if applied.now else ": everything was booked before, or costs the same"
    click.echo(f"Re-rating {total.rerate}: {applied.now:,} sessions corrected now{none}.")
    if applied.unpriced:
        click.echo(f"{applied.unpriced:,} sessions have no price by version {done.span.version} and stay as they are.")
    back, charged = (format_micros(a, done.currency) for a in (total.given_back_micros, total.charged_micros))
    click.echo(
        f"In all {total.sessions:,} sessions of {total.accounts:,} accounts, {total.entries:,} entries:"
        f" {back} {done.currency} given back, {charged} charged in addition."
    )
