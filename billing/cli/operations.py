"""`billing migrate`, `billing rebuild`, `billing reconcile`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from billing import operations
from billing.cli.common import json_option, ledger, print_fields, print_json, refuse, run, store
from billing.cli.errors import in_plain_words
from billing.reconcile.books import DEADLINE_S, NotComparable, compare_books
from billing.reconcile.progress import Progress, silent
from billing.reconcile.rebuild import RebuildRefused
from billing.reconcile.rebuild import rebuild as rebuild_store
from billing.reconcile.replay import CatalogueNotReady
from billing.reconcile.report import Report
from billing.settings import Settings
from billing.stream.log import LogAway, OutOfRange

STORE_TIMEOUT_S = 2.0  # a silent store is given up after two or three of these


@click.command()
@click.option("--post", is_flag=True, help="Also what had to wait until no process of an earlier build runs.")
@json_option
def migrate(post: bool, as_json: bool) -> None:
    """Prepare PostgreSQL, the topics and Redis; safe to repeat, also while consumers run.

    The schema is changed as BILLING_POSTGRES_OWNER_DSN, if it is set; the user of BILLING_POSTGRES_DSN, as whom
    consumers run, is made and granted what they need.
    """
    try:
        answer = run(operations.migrate(Settings.from_env(), post=post))
    except LogAway as error:
        refuse(f"Kafka: {in_plain_words(error)}")
    if isinstance(answer, operations.NotPrepared):
        refuse(answer.reason)
    if as_json:
        print_json({"timeline": answer.timeline, "incarnation": answer.incarnation, "did": answer.lines})
        return
    for line in answer.lines:
        click.echo(line)


@click.command()
@click.option("--reason", default="billing rebuild", help="Kept with the new incarnation.")
@json_option
def rebuild(reason: str, as_json: bool) -> None:
    """Fill the balance store anew from the ledger and the log, while usage keeps flowing.

    Balances are Unknown(rebuilding) meanwhile; running consumers wait and go on by themselves.
    """
    try:
        answer = run(rebuild_store(Settings.from_env(), reason=reason, progress=progress_on_stderr(as_json)))
    except (LogAway, OutOfRange, CatalogueNotReady) as error:
        refuse(f"not rebuilt, balances stay unknown until a run is complete: {in_plain_words(error)}")
    if isinstance(answer, RebuildRefused):
        refuse(answer.reason)
    print_fields({**asdict(answer), "seconds": round(answer.seconds, 2)}, as_json=as_json)


@click.command()
@click.option("--wait", "deadline_s", type=click.FloatRange(0, 3600), default=DEADLINE_S, show_default=True)
@json_option
def reconcile(deadline_s: float, as_json: bool) -> int:
    """Compare the two books, every account: credit - used = ledger balance at the same ledger_seq, holds left out.

    Exit code 1 for a difference, an Unknown, or an account that is still behind after --wait seconds; 2 when a book
    does not answer.
    """

    async def work(settings: Settings) -> Report | NotComparable:
        async with ledger(settings) as pool, store(settings, timeout_s=STORE_TIMEOUT_S) as functions:
            progress = progress_on_stderr(as_json)
            return await compare_books(pool, functions, settings, deadline_s=deadline_s, progress=progress)

    report = run(work(Settings.from_env()))
    if isinstance(report, NotComparable):
        refuse(report.reason)
    if as_json:
        print_json({"ok": report.agreed, **_counts(report), "named": [_named(found) for found in report.named]})
    else:
        print_fields(_counts(report), as_json=False)
        for found in report.named:
            click.echo(f"{found.account}  {found.what}")
    return 0 if report.agreed else 1


def _counts(report: Report) -> dict[str, Any]:
    return {
        "accounts": report.accounts,
        "equal": report.equal,
        "behind": report.behind,
        "missing": report.missing,
        "different": report.different,
        "unknown": report.unknown,
        "seconds": round(report.seconds, 2),
    }


def _named(found: Any) -> dict[str, Any]:
    return {
        "account": found.account,
        "partition": found.partition,
        "kind": type(found.comparison).__name__.lower(),
        "finding": found.what,
        "ledger": None if found.ledger is None else asdict(found.ledger),
        "store": None if found.store is None else asdict(found.store),
    }


def progress_on_stderr(quiet: bool) -> Progress:
    """Stages as they end; on a terminal also how far the current one is."""
    if quiet:
        return silent
    live = sys.stderr.isatty()

    def show(stage: str, done: int, total: int) -> None:
        ended = done >= total
        if live or ended:
            click.echo(f"\r{stage}: {done}/{total}", nl=ended or not live, err=True)

    return show
