"""`billing partitions`: how many there are, everywhere, and going over to more of them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

import click

from billing.cli.common import author, json_option, ledger, print_fields, print_json, refuse, run
from billing.ledger.terms import text_problem
from billing.partitions import migrate as work
from billing.partitions.look import Standing, look
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway, OutOfRange

T = TypeVar("T")


@click.group("partitions")
def partitions_group() -> None:
    """Partitions of usage.events, ledger.entries and billing.signals: every account has its home in one (S16)."""


@partitions_group.command("show")
@json_option
def show_(as_json: bool) -> int:
    """How many partitions the topics, the ledger and BILLING_PARTITIONS have, and what to do where they differ.

    Exit code 1 where they do, or where a migration is not complete.
    """

    async def ask() -> Standing:
        settings = Settings.from_env()
        async with (
            ledger(settings) as pool,
            LogReader(settings.kafka_bootstrap, client_id="billing-cli") as reader,
        ):
            return await _plainly(look(settings, pool, reader))

    standing = run(ask())
    if as_json:
        print_json(_fields(standing))
    else:
        print_fields(_lines(standing), as_json=False)
    return 0 if standing.agreed else 1


@partitions_group.command("migrate")
@click.option("--to", type=click.IntRange(1, 1024), required=True, metavar="N", help="How many there are to be.")
@click.option("--apply", "apply_", is_flag=True, help="Do it; without, say what would be done.")
@click.option("--by", default=author, metavar="NAME", help="Who decides this; kept with it.")
@click.option("--reason", default="more partitions", show_default=True, metavar="TEXT", help="Why; kept with it.")
@json_option
def migrate_(to: int, apply_: bool, by: str, reason: str, as_json: bool) -> int:
    """Go over to N partitions: accounts move to the one that their key has among N, with their balance and open holds.

    Producers and all processes are to be stopped. May be ended at any moment; the same command goes on from there.
    Afterwards every process needs BILLING_PARTITIONS=N. Exit code 1 where something is in the way.
    """
    for name, text in (("by", by), ("reason", reason)):
        if problem := text_problem(text, empty=False):
            refuse(f"--{name} {problem}")
    settings = Settings.from_env()
    if not apply_:
        return _show_plan(run(_plainly(work.plan(settings, to))), as_json=as_json)
    return _apply(settings, to, by, reason, as_json=as_json)


def _apply(settings: Settings, to: int, by: str, reason: str, *, as_json: bool) -> int:
    steps: dict[str, str] = {}

    def said(step: str, detail: str) -> None:
        steps[step] = detail
        if not as_json:
            click.echo(f"{step}: {detail}")

    answer = run(_plainly(work.migrate(settings, to, author=by, reason=reason, said=said)))
    if isinstance(answer, work.NotMigrated):
        if as_json:
            print_json({"migrated": False, "reasons": answer.reasons, "steps": steps})
        else:
            for line in answer.reasons:
                click.echo(f"billing: {line}", err=True)
        return 1
    if as_json:
        print_json({"migrated": True, "partitions": answer.to, "incarnation": answer.incarnation, "steps": steps})
    elif answer.incarnation is None:
        click.echo(f"nothing to do: {answer.to} partitions everywhere; set BILLING_PARTITIONS={answer.to}")
    return 0


def _show_plan(planned: work.Planned, *, as_json: bool) -> int:
    standing = planned.standing
    fields: dict[str, Any] = {
        "from": standing.ledger,
        "to": planned.to,
        "accounts": planned.accounts,
        "moving": planned.moving,
        "records_to_settle": standing.behind,
    }
    if as_json:
        print_json({**fields, "topics": dict(standing.topics), "in_the_way": planned.refusals})
    else:
        print_fields({**fields, "topics": _topics(standing)}, as_json=False)
        for line in planned.refusals:
            click.echo(f"in the way: {line}")
        if not planned.refusals:
            click.echo("a dry run: nothing was changed; --apply does it")
    return 1 if planned.refusals else 0


def _fields(standing: Standing) -> dict[str, Any]:
    return {
        "agreed": standing.agreed,
        "advice": standing.advice,
        "setting": standing.setting,
        "ledger": standing.ledger,
        "moving_to": standing.moving_to,
        "topics": dict(standing.topics),
        "records_behind": standing.behind,
        "running": dict(standing.consumers),
        "migrations": [
            {
                "from": found.from_partitions,
                "to": found.to_partitions,
                "accounts": found.accounts,
                "by": found.author,
                "reason": found.reason,
                "moved_at": found.moved_at,
            }
            for found in standing.migrations
        ],
    }


def _lines(standing: Standing) -> dict[str, Any]:
    running = ", ".join(f"{name} ({count})" for name, count in standing.consumers.items())
    lines = {
        "BILLING_PARTITIONS": standing.setting,
        "ledger": standing.ledger,
        "moving to": standing.moving_to,
        "topics": _topics(standing),
        "records behind": standing.behind,
        "running": running or None,
    }
    for found in standing.migrations:
        when = found.moved_at.isoformat(timespec="seconds")
        lines[f"moved {when}"] = (
            f"{found.from_partitions} to {found.to_partitions}, {found.accounts} accounts, by {found.author}:"
            f" {found.reason}"
        )
    return {**lines, "what to do": standing.advice}


def _topics(standing: Standing) -> str:
    return ", ".join(f"{topic} {count}" for topic, count in standing.topics.items())


async def _plainly(asked: Awaitable[T]) -> T:
    """What keeps Kafka's and the ledger's troubles to one line."""
    try:
        return await asked
    except (LogAway, OutOfRange) as error:
        refuse(f"Kafka: {error}")
    except LookupError as error:
        refuse(str(error))
