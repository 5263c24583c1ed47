"""`billing consume …`: one consumer process, as `python -m consumers.<name>`."""

from __future__ import annotations

import os
import sys

import click

NAMES = ("inflight", "postflight", "relay", "recharge", "reconciler", "admission", "webhooks")


@click.command()
@click.argument("name", type=click.Choice(NAMES))
def consume(name: str) -> None:
    """Run one consumer until SIGTERM or Ctrl-C."""
    # the process becomes the consumer: `billing` never imports `consumers`
    os.execv(sys.executable, [sys.executable, "-m", f"consumers.{name}"])
