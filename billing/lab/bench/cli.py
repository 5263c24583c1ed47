"""`billing bench inflight`, `settle` and `admission`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvloop

from billing.cli.quiet import quiet

if TYPE_CHECKING:
    from billing.lab.bench.figures import Report
    from billing.lab.bench.servers import Servers

ACCOUNTS, EVENTS, SECONDS = 1_000_000, 1_000_000, 10.0
QUICK_ACCOUNTS, QUICK_EVENTS, QUICK_SECONDS = 2_000, 40_000, 2.0
BACKLOG, QUICK_BACKLOG = 2_500_000, 800_000  # beside admission: to last longer than the load

OPTIONS = (
    click.option(
        "--accounts", type=click.IntRange(8, 20_000_000), help=f"Accounts to load.  [default: {ACCOUNTS}]"
    ),
    click.option(
        "--events",
        type=click.IntRange(8_000, 100_000_000),
        help=f"Events in each arm of a run.  [default: {EVENTS}; admission: {BACKLOG}]",
    ),
    click.option(
        "--runs", type=click.IntRange(1, 99), default=1, show_default=True, help="Medians are given of so many runs."
    ),
    click.option(
        "--only", metavar="ARM,…", default=None, help="Only the uniform drain and these arms; none is the drain alone."
    ),
    click.option("--quick", is_flag=True, help="Small counts, to see that it works; no figures to quote."),
    click.option(
        "--json", "json_file", metavar="PATH", help="Write the figures as JSON to this file; - prints them instead."
    ),
    click.option("--markdown", is_flag=True, help="Print the table as Markdown, for the documentation."),
)


def measuring(command: Callable[..., int]) -> Callable[..., int]:
    """The options of every benchmark, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.group()
def bench() -> None:
    """Measure the consumers, on servers of their own: figures, and what they are to be compared with."""


@bench.command()
@measuring
def inflight(
    *,
    accounts: int | None,
    events: int | None,
    runs: int,
    only: str | None,
    quick: bool,
    json_file: str | None,
    markdown: bool,
) -> int:
    """Drain a full usage.events into Redis/Valkey with one consumer process.

    Compared with the same function fed from memory, with draining alone, with a naive consumer, and with all traffic
    on one account per partition; then publish → applied latency in an open loop at half of the rate.
    """
    from billing.lab.bench.inflight import Options, run_inflight  # noqa: PLC0415 - the servers' clients load slowly
    from billing.lab.bench.inflight_figures import ARMS  # noqa: PLC0415

    options = Options(
        accounts=accounts or (QUICK_ACCOUNTS if quick else ACCOUNTS),
        events=events or (QUICK_EVENTS if quick else EVENTS),
        runs=runs,
        laps=1 if quick else 2,
        naive_events=2_000 if quick else 20_000,
        latency_seconds=QUICK_SECONDS if quick else SECONDS,
        arms=_arms(only, ARMS),
    )
    return _run(lambda servers, say: run_inflight(options, servers, say), json_file, markdown=markdown, quick=quick)


@bench.command()
@measuring
def settle(
    *,
    accounts: int | None,
    events: int | None,
    runs: int,
    only: str | None,
    quick: bool,
    json_file: str | None,
    markdown: bool,
) -> int:
    """Settle a full usage.events into PostgreSQL with one consumer process.

    Compared with COPY of the same rows, with all traffic on one account per partition, with a steady rate, and with a
    naive consumer; then both consumers together.
    """
    from billing.lab.bench.settle import Options, run_settle  # noqa: PLC0415 - the servers' clients load slowly
    from billing.lab.bench.settle_figures import ARMS  # noqa: PLC0415

    options = Options(
        accounts=accounts or (QUICK_ACCOUNTS if quick else ACCOUNTS),
        events=events or (QUICK_EVENTS if quick else EVENTS),
        runs=runs,
        laps=1 if quick else 2,
        naive_events=2_000 if quick else 10_000,
        steady_seconds=QUICK_SECONDS if quick else SECONDS,
        arms=_arms(only, ARMS),
    )
    return _run(lambda servers, say: run_settle(options, servers, say), json_file, markdown=markdown, quick=quick)


@bench.command()
@measuring
@click.option("--rate", type=click.FloatRange(1, 10_000), default=1_000, show_default=True, help="Requests a second.")
@click.option("--nice", type=click.IntRange(0, 19), default=0, show_default=True, help="Added to the consumer's.")
def admission(
    *,
    accounts: int | None,
    events: int | None,
    runs: int,
    only: str | None,
    quick: bool,
    json_file: str | None,
    markdown: bool,
    rate: float,
    nice: int,
) -> int:
    """Ask the admission service at a fixed rate, open loop: with nothing else to do; beside a consumer that drains a
    full usage.events; and there with balances from a replica, it and the service running as soon as they can."""
    from billing.lab.bench.admission import Options, run_admission  # noqa: PLC0415 - the servers' clients load slowly
    from billing.lab.bench.admission_figures import ARMS  # noqa: PLC0415

    options = Options(
        accounts=accounts or (QUICK_ACCOUNTS if quick else ACCOUNTS),
        events=events or (QUICK_BACKLOG if quick else BACKLOG),
        runs=runs,
        rate=rate,
        seconds=QUICK_SECONDS if quick else SECONDS,
        nice=nice,
        arms=_arms(only, ARMS),
    )
    return _run(lambda servers, say: run_admission(options, servers, say), json_file, markdown=markdown, quick=quick)


def _arms(only: str | None, known: Sequence[str]) -> Sequence[str]:
    """The arms that are wanted; raises click.BadParameter for one that there is not."""
    if only is None:
        return known
    wanted = [] if only == "none" else only.split(",")
    for name in wanted:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="--only")
    return wanted


def _run(
    work: Callable[[Servers, Callable[[str], None]], Coroutine[Any, Any, Report]],
    json_file: str | None,
    *,
    markdown: bool,
    quick: bool,
) -> int:
    """Start servers, work, print. What is going on is said on stderr; the figures are on stdout."""
    from rich.console import Console  # noqa: PLC0415

    from billing.lab.bench.running import ArmFailed  # noqa: PLC0415
    from billing.lab.bench.servers import own_servers  # noqa: PLC0415
    from billing.lab.interrupts import heed_interrupts  # noqa: PLC0415
    from billing.lab.prepare import NotPrepared  # noqa: PLC0415
    from billing.lab.waiting import WaitedTooLong  # noqa: PLC0415

    def say(line: str) -> None:
        click.echo(line, err=True)

    quiet()
    heed_interrupts()
    try:
        with own_servers(say) as servers, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(work(servers, say))
        if quick:
            report = replace(report, title=f"{report.title}; a quick try, no figures to quote")
    except (ArmFailed, NotPrepared, WaitedTooLong) as error:
        raise click.ClickException(str(error)) from None
    document = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
    if json_file == "-":
        click.echo(document)
        return 0
    if json_file:
        Path(json_file).write_text(document + "\n", encoding="utf-8")
    if markdown:
        click.echo(report.markdown(), nl=False)
    else:
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, 110)  # lines that wrap are hard to read in a log
        console.print(report.table())
        click.echo("\n".join(f"{name}: {value}" for name, value in report.conditions.items()))
    return 0
