"""`billing demo`."""

from __future__ import annotations

from pathlib import Path

import click

from billing.lab.supervise import WITH_RECHARGE

DEFAULT_RATE = 4_000


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(1, 86_400),
    default=30,
    show_default=True,
    envvar="DEMO_SECONDS",
    help="How long to publish (DEMO_SECONDS).",
)
@click.option(
    "--rate",
    type=click.IntRange(1, 200_000),
    default=DEFAULT_RATE,
    show_default=True,
    envvar="DEMO_RATE",
    help="Events a second (DEMO_RATE).",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed is another day's traffic.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DEMO_REPORT",
    help="Write the report as JSON to this file (DEMO_REPORT).",
)
@click.option(
    "--kill",
    type=click.Choice([*WITH_RECHARGE, "random"]),
    default=None,
    help="SIGKILL this consumer in the middle; random: one after the other, all the time.",
)
@click.option(
    "--wipe", is_flag=True, help="Empty Redis in the middle and make it read-only, as in July 2013; then recover."
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw balances, usage and charges over time into this PNG (needs matplotlib).",
)
def demo(
    *, seconds: float, rate: int, seed: int, report: Path | None, kill: str | None, wipe: bool, picture: Path | None
) -> int:
    """The whole pipeline on real Kafka, Redis/Valkey and PostgreSQL, under traffic, verified.

    Starts what is missing, opens 200 accounts, half of them with cards of a payment sandbox, publishes usage with
    duplicates, reordering and poison in it, waits until both books have all of it and low balances are recharged,
    compares books and gateway with each other and with what was sent. Exit code 1 when a check fails. Servers that are
    given by BILLING_… are used under a namespace and a database of the demo's own.
    """
    from billing.lab.campaign import Options  # noqa: PLC0415 - the servers' clients load only when needed
    from billing.lab.demo import run_demo  # noqa: PLC0415
    from billing.lab.picture import NoMatplotlib, check_matplotlib  # noqa: PLC0415

    if picture is not None:
        try:
            check_matplotlib()
        except NoMatplotlib as error:
            raise click.ClickException(str(error)) from None
    options = Options(seconds=seconds, rate=rate, seed=seed, kill=kill or "", wipe=wipe)
    return run_demo(options, report, picture)
