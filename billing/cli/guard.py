"""`billing guard`: is the balance store fit to move money by, and what to do where it is not."""

from __future__ import annotations

import textwrap
from typing import Any

import click

from billing.cli.common import json_option, print_json, run
from billing.guard.verdict import GuardVerdict
from billing.guard.watch import guard_of
from billing.settings import Settings

_WIDTH = 110


@click.command()
@json_option
def guard(as_json: bool) -> int:
    """Look once at the balance store: each finding in words, and what to do about it.

    "refuses" stops recharges and suspensions, "warns" will hurt at the next restart or failover, "notes" is worth
    knowing or could not be checked. Looks at every primary of a cluster, and at replicas and theirs.
    Exit code 1 where anything refuses. Whether the server was restarted shows only between the looks of a running
    consumer (metric billing_guard_finding). BILLING_EXPECT_PERSISTENCE is on (default), aof or off.
    """

    async def work(settings: Settings) -> GuardVerdict:
        async with guard_of(settings) as found:
            return await found.look()

    verdict = run(work(Settings.from_env()))
    if as_json:
        print_json(as_fields(verdict))
    else:
        for line in as_lines(verdict):
            click.echo(line)
    return 0 if verdict.healthy else 1


def as_fields(verdict: GuardVerdict) -> dict[str, Any]:
    """The verdict as JSON has it."""
    findings = [
        {
            "finding": found.finding.value,
            "severity": found.finding.severity.value,
            "detail": found.detail,
            "advice": found.finding.advice,
        }
        for found in verdict.findings
    ]
    return {
        "healthy": verdict.healthy,
        "reasons": list(verdict.reasons),
        "warnings": list(verdict.warnings),
        "findings": findings,
        "seen": dict(verdict.seen),
    }


def as_lines(verdict: GuardVerdict) -> list[str]:
    """The verdict in words."""
    seen = verdict.seen
    shown = [str(seen[name]) for name in ("server", "role") if seen.get(name)]
    shown += [f"{name} {seen[name]}" for name in ("incarnation", "run_id") if seen.get(name) is not None]
    said = "healthy" if verdict.healthy else "NOT healthy: no recharge, no suspension"
    lines = [f"balance store {said}" + (f" ({', '.join(shown)})" if shown else "")]
    for found in verdict.findings:
        head = f"{found.finding.severity.value:<8}{found.finding.value}: "
        lines += textwrap.wrap(f"{head}{found.detail}", _WIDTH, subsequent_indent=" " * 8, break_long_words=False)
        indent = " " * 8
        lines += textwrap.wrap(found.finding.advice, _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return lines
