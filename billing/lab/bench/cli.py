"""`billing bench inflight` and `billing bench settle`."""

from __future__ import annotations

import asyncio

import click
import uvloop

from billing.cli.quiet import quiet


@click.group()
def bench() -> None:
    """Measure the consumers on servers of their own: figures, and what they are to be compared with."""


@bench.command()
@click.option("--accounts", type=click.IntRange(8, 20_000_000), default=1_000_000, show_default=True)
@click.option("--events", type=click.IntRange(800, 100_000_000), default=1_000_000, show_default=True)
@click.option("--runs", type=click.IntRange(1, 100), default=1, show_default=True)
def inflight(*, accounts: int, events: int, runs: int) -> int:
    """Drain a full topic into Redis with one consumer process."""
    from billing.lab.bench.inflight import Options, run_inflight  # noqa: PLC0415 - the servers' clients load slowly
    from billing.lab.bench.servers import own_servers  # noqa: PLC0415

    quiet()
    with own_servers(click.echo) as servers, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for pace in runner.run(run_inflight(Options(accounts, events, runs), servers, click.echo)):
            click.echo(
                f"{pace.per_second:,.0f} events/s over {pace.seconds:.1f} s; CPU us/event: "
                + ", ".join(f"{name} {micros:.2f}" for name, micros in pace.cpu_micros.items())
            )
    return 0
