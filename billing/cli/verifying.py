"""What `billing ledger verify` shows while it works: each check as it is done, on a terminal also the one under way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from billing.ledger.verify import CHECKS, Check, Progress, silent


@contextmanager
def verifying(*, quiet: bool) -> Iterator[Progress]:
    """What the checks are told to: nothing when `quiet`, lines elsewhere, and a bar on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield silent if quiet else _say
    else:
        with _bar() as show:
            yield show


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich import progress  # noqa: PLC0415 - slow to import, and wanted on a terminal only
    from rich.console import Console  # noqa: PLC0415

    description, done_of = progress.TextColumn("{task.description}"), progress.MofNCompleteColumn()
    columns = (description, progress.BarColumn(), done_of, progress.TimeElapsedColumn())
    # lines go above the bar where both are on the terminal; where stdout is a file they belong into it
    above = sys.stdout.isatty()
    with progress.Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=above) as bar:
        task = bar.add_task(CHECKS[0], total=len(CHECKS))

        def show(check: Check) -> None:
            _say(check)
            done = CHECKS.index(check.name) + 1
            bar.update(task, completed=done, description=CHECKS[min(done, len(CHECKS) - 1)])

        yield show


def _say(check: Check) -> None:
    violations = "" if check.passed else f": {check.violations} violations, for example {check.example}"
    click.echo(f"{'ok    ' if check.passed else 'FAILED'} {check.name}{violations}")
