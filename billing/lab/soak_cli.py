"""`billing soak`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click

from billing.cli.common import json_option, print_json


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(40, 86_400), default=240, show_default=True, envvar="SOAK_SECONDS",
    help="How long (SOAK_SECONDS).",
)  # fmt: skip
@click.option("--rate", type=click.IntRange(1, 50_000), default=2_000, show_default=True, help="Events a second.")
@json_option
def soak(seconds: float, rate: int, as_json: bool) -> int:
    """A steady load on servers of its own: open sessions, dedupe windows, signals, Redis's and the consumers' memory
    stay flat, and both books are exact in the end.

    Dedupe generations last ten seconds here, so that many come and go. Exit code 1 when something grows or a book is
    wrong.
    """
    from billing.lab.bench.servers import own_servers  # noqa: PLC0415 - the servers' clients load only when needed
    from billing.lab.interrupts import heed_interrupts  # noqa: PLC0415
    from billing.lab.soak import soak as run_soak  # noqa: PLC0415

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    heed_interrupts()
    with own_servers(say) as servers:
        logs = servers.folder / "logs"
        found = asyncio.run(run_soak(servers.settings, logs, seconds=seconds, rate=rate, say=say))
    if as_json:
        checks = [check._asdict() for check in found.checks]
        print_json({"ok": found.ok, "looks": [asdict(look) for look in found.looks], "checks": checks})
    else:
        for check in found.checks:
            click.echo(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.detail}")
    return 0 if found.ok else 1
