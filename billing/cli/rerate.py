"""`billing rerate`: settled usage priced again; a dry run unless --apply."""

from __future__ import annotations

import sys
from typing import Any

import click

from billing.cli.common import MOMENT, ledger, print_json, refuse, run
from billing.cli.rerate_text import SHOWN, Done, Preview, preview_csv, preview_fields, print_done, print_preview
from billing.ledger import rerate as rerating
from billing.ledger.database import Pool
from billing.ledger.rerate import EmptySpan, LaterVersion, NoSuchVersion, Span, SpanRefusal
from billing.ledger.rerate_apply import Applied, ApplyAnswer, Busy, Progress, apply
from billing.ledger.terms import Invalid
from billing.rating.tariff import Tariff
from billing.settings import Settings


@click.command()
@click.option("--plan", required=True)
@click.option("--from", "from_ms", type=MOMENT, required=True, help="First price time of the span.")
@click.option("--to", "to_ms", type=MOMENT, required=True, help="First price time after it.")
@click.option("--tariff-version", "version", type=click.IntRange(min=1), help="To price by; the newest when left out.")
@click.option("--apply", "do_apply", is_flag=True, help="Book it; needs --by and --reason.")
@click.option("--by", metavar="NAME", help="Who decides this; kept with it.")
@click.option("--reason", metavar="TEXT", help="Why; kept with each entry, and shown on statements.")
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
@click.option("--json", "json_", is_flag=True, help="The same as --format json.")
@click.option(
    "--all", "all_", is_flag=True, help=f"Every account in the text, not only the {SHOWN} largest differences."
)
def rerate(
    plan: str,
    from_ms: int,
    to_ms: int,
    *,
    version: int | None,
    do_apply: bool,
    by: str | None,
    reason: str | None,
    form: str,
    json_: bool,
    all_: bool,
) -> None:
    """Price a plan's settled usage again, by another of its tariff versions.

    Without --apply nothing is booked: it shows the difference per account. Load the right prices first: `billing tariff
    load`, with --for-rerating where they are only for the past. A version corrects each session once, so --apply may be
    interrupted, repeated, and run over overlapping spans. Debits make nobody due for a charge until acknowledged.
    """
    if do_apply and (by is None or reason is None):
        refuse("--apply needs --by and --reason")
    form = "json" if json_ else form

    async def work() -> Preview | Done:
        async with ledger(Settings.from_env()) as pool:
            found = await rerating.resolve(pool, plan, version, from_ms, to_ms)
            if not isinstance(found, tuple):
                refuse(_explain(found))
            if not do_apply:
                return await _preview(pool, *found)
            answer = await apply(pool, *found, author=by or "", reason=reason or "", hear=_hear(form))
        if not isinstance(answer, Applied):
            refuse(_explain(answer))
        return Done(found[0], found[1].currency, answer)

    done = run(work())
    if isinstance(done, Done):
        print_done(done, as_json=form == "json")
    elif form == "json":
        print_json(preview_fields(done))
    elif form == "csv":
        click.echo(preview_csv(done), nl=False)
    else:
        print_preview(done, all_=all_)


async def _preview(pool: Pool, span: Span, tariff: Tariff) -> Preview:
    found = Preview(span, tariff.currency, await rerating.booked(pool, span), [])
    async for difference in rerating.preview(pool, span, tariff):
        found.looked_at += 1
        found.sessions += difference.sessions
        if difference.changed or difference.unpriced:
            found.accounts.append(difference)
    return found


def _hear(form: str) -> Any:
    """Progress on a terminal's line, where people look."""

    def show(progress: Progress) -> None:
        line = f"\r{progress.done:,} of {progress.sessions:,} sessions, {progress.booked:,} corrected"
        click.echo(line, err=True, nl=False)
        if progress.done == progress.sessions:
            click.echo(err=True)

    return show if form == "text" and sys.stderr.isatty() else lambda _progress: None


def _explain(refusal: SpanRefusal | ApplyAnswer) -> str:
    match refusal:
        case NoSuchVersion(plan=plan, version=None):
            return f"plan {plan!r} has no tariff"
        case NoSuchVersion(plan=plan, version=version):
            return f"plan {plan!r} has no tariff version {version} (see `billing tariff list`)"
        case EmptySpan():
            return "--from must be before --to"
        case LaterVersion(rerate=number, version=version):
            return (
                f"re-rating {number} has priced some of this span with the later version {version}; "
                "load the rates again as a new version to go back"
            )
        case Busy(plan=plan):
            return f"another re-rating of plan {plan} is running"
        case Invalid(field=field, problem=problem):
            return f"{field} {problem}"
        case _:
            raise AssertionError(refusal)
