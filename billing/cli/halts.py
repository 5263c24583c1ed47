"""`billing halts`: partitions that do not go on, why, and letting them go on."""

from __future__ import annotations

from typing import Any

import click

from billing.cli.common import (
    by_option,
    json_option,
    ledger,
    print_fields,
    print_rows,
    reason_option,
    refuse,
    run,
    store,
)
from billing.cli.errors import in_plain_words
from billing.ledger.migrate import SIGNALS_TOPIC, USAGE_TOPIC
from billing.ledger.terms import text_problem
from billing.reconcile.halts import Halt, StoreAway, halts
from billing.reconcile.lifting import Lifted, Lifting, NotLifted, Order
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway
from billing.stream.publisher import Publisher


@click.group("halts")
def halts_group() -> None:
    """Partitions that an operator must look at: PostgreSQL's (ledger) and Redis's (store)."""


@halts_group.command("list")
@json_option
def list_(as_json: bool) -> int:
    """What is halted, since when, why, whether the cause persists, and what to do. Exit code 1 when something is."""

    async def work() -> tuple[list[Halt], StoreAway | None]:
        settings = Settings.from_env()
        async with (
            ledger(settings) as pool,
            store(settings, timeout_s=2.0) as functions,
            LogReader(settings.kafka_bootstrap, client_id="billing-cli") as reader,
        ):
            return await halts(pool, functions, reader, settings)

    try:
        found, away = run(work())
    except LogAway as error:
        refuse(f"Kafka: {in_plain_words(error)}")
    print_rows([_fields(halt) for halt in found], as_json=as_json, empty="nothing is halted")
    if away is not None:
        click.echo(f"billing: the balance store does not answer, so its halts are not listed: {away.reason}", err=True)
    return 1 if found or away is not None else 0


@halts_group.command("lift")
@click.option("--partition", type=click.IntRange(min=0), required=True)
@click.option("--book", type=click.Choice(["ledger", "store"]), default="ledger", show_default=True)
@click.option("--topic", type=click.Choice([USAGE_TOPIC, SIGNALS_TOPIC]), default=USAGE_TOPIC, show_default=True)
@click.option("--accept-loss", is_flag=True, help="Records were removed before they were read: go on without them.")
@click.option(
    "--replaced-from",
    type=click.IntRange(min=0),
    metavar="OFFSET",
    help="The log is another one from this offset on (0: all of it): what stands there is published again.",
)
@by_option
@reason_option
@json_option
def lift_(partition: int, as_json: bool, **given: Any) -> int:
    """Let a halted partition go on, when its position fits the log again, or as the options say.

    Exit code 1 when the cause persists. Afterwards a lost or replaced log needs `billing rebuild`.
    """
    for name in ("by", "reason"):
        if problem := text_problem(given[name], empty=False):
            refuse(f"--{name} {problem}")
    if given["accept_loss"] and given["replaced_from"] is not None:
        refuse("one way at a time")
    order = Order(
        given["book"],
        given["topic"],
        partition,
        given["by"],
        given["reason"],
        given["accept_loss"],
        given["replaced_from"],
    )

    async def work() -> Lifted | NotLifted:
        settings = Settings.from_env()
        async with (
            ledger(settings) as pool,
            store(settings, timeout_s=2.0) as functions,
            LogReader(settings.kafka_bootstrap, client_id="billing-cli") as reader,
            Publisher(settings.kafka_bootstrap, client_id="billing-cli") as publisher,
        ):
            return await Lifting(pool, functions, reader, publisher, settings).lift(order)

    try:
        answer = run(work())
    except LogAway as error:
        refuse(f"Kafka: {in_plain_words(error)}")
    if isinstance(answer, NotLifted):
        if as_json:
            print_fields({"lifted": False, "reason": answer.reason}, as_json=True)
        else:
            click.echo(f"billing: {answer.reason}", err=True)
        return 1
    fields = {
        "lifted": True,
        "book": answer.book,
        "topic": answer.topic,
        "partition": answer.partition,
        "offset": answer.offset,
        "lost": answer.lost,
        "published_again": answer.published_again,
    }
    print_fields(fields, as_json=as_json)
    return 0


def _fields(halt: Halt) -> dict[str, Any]:
    return {
        "book": halt.book,
        "topic": halt.topic,
        "partition": halt.partition,
        "since": None if halt.since is None else halt.since.isoformat(timespec="seconds"),
        "position": halt.position.offset,
        "reason": halt.reason,
        "persists": halt.persists,
        "advice": halt.advice,
    }
