"""`billing sandbox`: run the payment sandbox in the foreground."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import click

from billing.devstack.folders import state_dir
from billing.lab.sandbox.server import HOST, Running, start
from billing.lab.sandbox.store import StateError, Store


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 takes a free one.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of customers, payments, keys and faults, kept between runs; default: sandbox in the stack's state.",
)
@click.option("--webhooks", "webhook_url", metavar="URL", help="Tell this endpoint what happens, signed.")
@click.option("--json", "as_json", is_flag=True, help="Print the variables as one JSON object.")
def sandbox(port: int, state: Path | None, webhook_url: str | None, as_json: bool) -> None:
    """A stand-in for Stripe's API on this machine: stateful, with Stripe's test payment methods and faults on demand.

    Prints BILLING_STRIPE_API_BASE and BILLING_STRIPE_API_KEY once it accepts connections, with --webhooks also
    BILLING_STRIPE_WEBHOOK_SECRET, and runs until stopped.
    """
    try:
        store = Store(state if state is not None else state_dir() / "sandbox")
    except (StateError, OSError) as trouble:
        raise click.ClickException(str(trouble)) from None
    try:
        asyncio.run(_serve(store, port, webhook_url, as_json))
    except OSError as trouble:
        raise click.ClickException(f"cannot listen on {HOST}:{port}: {trouble.strerror or trouble}") from None
    finally:
        store.close()


async def _serve(store: Store, port: int, webhook_url: str | None, as_json: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    running = await start(store, port, webhook_url=webhook_url)
    try:
        _announce(running, store, as_json, webhooks=webhook_url is not None)
        await stopped.wait()
    finally:
        await running.stop()


def _announce(running: Running, store: Store, as_json: bool, *, webhooks: bool) -> None:
    variables = {
        "BILLING_STRIPE_API_BASE": f"http://{HOST}:{running.port}",
        "BILLING_STRIPE_API_KEY": store.api_key,
    }
    if webhooks:
        variables["BILLING_STRIPE_WEBHOOK_SECRET"] = store.webhook_secret
    if as_json:
        click.echo(json.dumps(variables))
    else:
        for name, value in variables.items():
            click.echo(f"export {name}={value}")
