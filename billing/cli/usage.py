"""`billing usage ID` and `billing usage refund`."""

from __future__ import annotations

from typing import Any

import click

from billing.cli.answers import explain_refusal
from billing.cli.common import AMOUNT, by_option, json_option, ledger, print_fields, reason_option, refuse, run
from billing.cli.ledger import usage as list_
from billing.cli.shown import no_wait_option, until_shown
from billing.ledger.corrections import Ambiguous, NoSuchSession, RefundAnswer, Refunded, TooMuch, refund_usage
from billing.money import format_micros
from billing.settings import Settings
from billing.usage.ops import SessionKind

KINDS: tuple[SessionKind, ...] = ("call", "message", "item")


class _Usage(click.Group):
    """`usage ID` lists; `usage refund ID SESSION` refunds."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Usage)
def usage() -> None:
    """An account's settled sessions, the newest first (`billing usage ID`); refunds of them."""


usage.add_command(list_, "list")


@usage.command("refund")
@click.argument("account_id", metavar="ID")
@click.argument("session")
@click.option("--kind", type=click.Choice(KINDS), help="Where the account has several sessions of this id.")
@click.option("--amount", "amount_micros", type=AMOUNT, help="A part; all that is left of its price when left out.")
@by_option
@reason_option
@click.option("--key", help="The same key books once.")
@no_wait_option
@json_option
def refund(
    account_id: str,
    session: str,
    kind: SessionKind | None,
    amount_micros: int | None,
    *,
    by: str,
    reason: str,
    key: str | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Give back what a settled call, message or item cost, whole or in part; at most its price in all."""

    async def work(settings: Settings) -> RefundAnswer:
        async with ledger(settings) as pool:
            answer = await refund_usage(pool, account_id, session, amount_micros, reason, author=by, kind=kind, key=key)
        if isinstance(answer, Refunded) and not no_wait:
            await until_shown(settings, {account_id: answer.entry.ledger_seq})
        return answer

    answer = run(work(Settings.from_env()))
    if not isinstance(answer, Refunded):
        refuse(_explain(answer))
    entry = answer.entry
    amounts = {
        "refunded": answer.amount_micros,
        "left": answer.left_micros,
        "balance": entry.balance_micros,
    }
    fields: dict[str, Any] = {"account": account_id, "session": answer.session, "kind": answer.kind}
    for name, value in amounts.items():
        fields |= {f"{name}_micros": value} if as_json else {name: format_micros(value, entry.currency)}
    fields |= {"currency": entry.currency, "entry": entry.entry_id, "repeated": entry.repeated}
    fields |= {"ledger_seq": entry.ledger_seq}
    print_fields(fields, as_json=as_json)


def _explain(refusal: RefundAnswer) -> str:
    match refusal:
        case NoSuchSession(account=account, session=session):
            return f"account {account} has no settled session {session!r} (see `billing usage {account}`)"
        case Ambiguous(session=session, kinds=kinds):
            return f"{session!r} is a {' and a '.join(kinds)}: say which with --kind"
        case TooMuch():
            return too_much(refusal)
        case Refunded():
            raise AssertionError("not a refusal")
        case _:
            return explain_refusal(refusal)


def too_much(refusal: TooMuch) -> str:
    """One line."""
    price = format_micros(refusal.price_micros, refusal.currency)
    left = format_micros(refusal.left_micros, refusal.currency)
    if refusal.left_micros:
        return f"only {left} of the {price} {refusal.currency} of {refusal.what} can still be given back"
    return f"nothing is left of the {price} {refusal.currency} of {refusal.what} to give back"
