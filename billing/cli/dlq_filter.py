"""Which dead letters a command is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from billing.cli.common import MOMENT
from billing.deadletters.letters import Filter
from billing.ledger.migrate import SIGNALS_TOPIC, USAGE_TOPIC
from schemas.deadletter import DeadLetterState
from schemas.reasons import DeadLetterReason

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(reason_name: str, *, states: bool = True) -> Callable[[F], F]:
    """The options that `make_filter` takes; `reason_name` is what the letter's reason is called, beside
    --letter-reason, which it is everywhere: where letters are decided about, --reason is why."""
    reasons = click.Choice([reason.value for reason in DeadLetterReason])
    names = dict.fromkeys((reason_name, "--letter-reason"))
    options = [
        click.option(*names, "letter_reason", type=reasons, help="Only those of this reason."),
        click.option("--account", metavar="ID", help="Only those about this account, or under its key."),
        click.option("--since", type=MOMENT, help="Only those logged then or later (2026-12-01T00:00:00Z)."),
        click.option("--until", type=MOMENT, help="Only those logged before."),
        click.option("--topic", type=click.Choice([USAGE_TOPIC, SIGNALS_TOPIC]), help="Only those of this topic."),
        click.option("--partition", type=click.IntRange(min=0), help="Only those of this partition."),
    ]
    if states:
        known = click.Choice(get_args(DeadLetterState))
        options.append(click.option("--state", "states", type=known, multiple=True, help="Only those in this state."))

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def make_filter(
    *,
    letter_reason: str | None,
    account: str | None,
    since: int | None,
    until: int | None,
    topic: str | None,
    partition: int | None,
    states: tuple[DeadLetterState, ...] = (),
) -> Filter:
    """From the options of `filter_options`."""
    reason = None if letter_reason is None else DeadLetterReason(letter_reason)
    return Filter(reason, account, since, until, topic, partition, states or None)
