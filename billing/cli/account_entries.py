"""`billing account credit`, `adjust`, `acknowledge`: entries made by hand, each with its author and reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import click

from billing.cli.answers import explain_refusal
from billing.cli.common import (
    AMOUNT,
    by_option,
    json_option,
    ledger,
    me_option,
    print_fields,
    reason_option,
    refuse,
    run,
)
from billing.cli.shown import no_wait_option, until_shown
from billing.ledger import booking
from billing.ledger.booking import Acknowledged, BookAnswer, Booked
from billing.ledger.database import Pool
from billing.money import format_micros
from billing.settings import Settings

_NEGATIVE = {"ignore_unknown_options": True}  # a negative amount is not an option

key_option = click.option("--key", help="The same key books once.")


@click.command("credit", context_settings=_NEGATIVE)
@click.argument("account_id", metavar="ID")
@click.argument("amount_micros", metavar="AMOUNT", type=AMOUNT)
@reason_option
@me_option
@click.option("--goodwill", is_flag=True, help="A gift: nothing was paid for it.")
@key_option
@no_wait_option
@json_option
def credit(
    account_id: str,
    amount_micros: int,
    *,
    reason: str,
    by: str,
    goodwill: bool,
    key: str | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Credit an account by hand."""
    origin: Literal["goodwill", "credit"] = "goodwill" if goodwill else "credit"

    async def book(pool: Pool) -> BookAnswer:
        return await booking.credit(pool, account_id, amount_micros, reason, author=by, key=key, origin=origin)

    _print_booked(run(_book(Settings.from_env(), book, wait=not no_wait)), as_json=as_json)


@click.command("adjust", context_settings=_NEGATIVE)
@click.argument("account_id", metavar="ID")
@click.argument("amount_micros", metavar="AMOUNT", type=AMOUNT)
@reason_option
@by_option
@click.option("--corrects", type=click.IntRange(min=1), metavar="ENTRY", help="The entry that was wrong.")
@key_option
@no_wait_option
@json_option
def adjust(
    account_id: str,
    amount_micros: int,
    *,
    reason: str,
    by: str,
    corrects: int | None,
    key: str | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Correct a balance, up or down (-5.00). A debit makes nobody due for a charge until it is acknowledged."""

    async def book(pool: Pool) -> BookAnswer:
        return await booking.adjust(pool, account_id, amount_micros, reason, author=by, key=key, corrects=corrects)

    _print_booked(run(_book(Settings.from_env(), book, wait=not no_wait)), as_json=as_json)


@click.command("acknowledge")
@click.argument("account_id", metavar="ID")
@by_option
@click.option("--reason", default="acknowledged", show_default=True)
@no_wait_option
@json_option
def acknowledge(account_id: str, *, by: str, reason: str, no_wait: bool, as_json: bool) -> None:
    """Let an account's debits other than usage count: from now on they may make it due for a charge."""

    async def work(settings: Settings) -> Acknowledged:
        async with ledger(settings) as pool:
            answer = await booking.acknowledge_debits(pool, account_id, reason, author=by)
        if not isinstance(answer, Acknowledged):
            refuse(explain_refusal(answer))
        if not no_wait:
            await until_shown(settings, {account_id: answer.ledger_seq})
        return answer

    done = run(work(Settings.from_env()))
    amount = {"amount_micros": done.amount_micros} if as_json else {"amount": format_micros(done.amount_micros)}
    print_fields({"account": account_id, "ledger_seq": done.ledger_seq, **amount}, as_json=as_json)


async def _book(settings: Settings, book: Callable[[Pool], Awaitable[BookAnswer]], *, wait: bool) -> Booked:
    async with ledger(settings) as pool:
        answer = await book(pool)
    if not isinstance(answer, Booked):
        refuse(explain_refusal(answer))
    if wait:
        await until_shown(settings, {answer.account: answer.ledger_seq})
    return answer


def _print_booked(booked: Booked, *, as_json: bool) -> None:
    balance = booked.balance_micros if as_json else format_micros(booked.balance_micros, booked.currency)
    fields = {
        "account": booked.account,
        "entry": booked.entry_id,
        "repeated": booked.repeated,
        "ledger_seq": booked.ledger_seq,
        "balance_micros" if as_json else "balance": balance,
        "currency": booked.currency,
    }
    print_fields(fields, as_json=as_json)
