"""`billing recharges taken-back`: a payment that went back is booked."""

from __future__ import annotations

import click

from billing.cli.answers import explain_refusal
from billing.cli.common import AMOUNT, by_option, json_option, ledger, print_fields, reason_option, refuse, run
from billing.cli.shown import no_wait_option, until_shown
from billing.cli.usage import too_much
from billing.ledger.booking import Booked
from billing.ledger.corrections import TooMuch
from billing.ledger.taken_back import NotCredited, TakenBack, TakenBackAnswer, take_back
from billing.ledger.terms import Conflict
from billing.money import format_micros
from billing.settings import Settings

_PREFIXES: dict[TakenBack, tuple[str, ...]] = {"payment_refund": ("re_", "pyr_"), "chargeback": ("dp_", "du_")}
_WHAT: dict[TakenBack, str] = {"payment_refund": "a refund", "chargeback": "a dispute"}


@click.command("taken-back")
@click.argument("recharge", type=click.IntRange(min=1))
@click.option("--refund", "origin", flag_value="payment_refund", help="We gave it back, at the gateway.")
@click.option("--chargeback", "origin", flag_value="chargeback", help="The customer's bank took it back.")
@click.option("--amount", "amount_micros", type=AMOUNT, help="A part; all that is left of it when left out.")
@by_option
@reason_option
@click.option("--gateway-id", required=True, metavar="ID", help="The refund's or the dispute's id at the gateway.")
@no_wait_option
@json_option
def taken_back(
    recharge: int,
    origin: TakenBack | None,
    amount_micros: int | None,
    *,
    by: str,
    reason: str,
    gateway_id: str,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Book that a recharge's payment went back, whole or in part. RECHARGE: its number in `billing recharges`.

    Moves no money at the gateway. The debit makes the account due for no charge until it is acknowledged. An ID books
    once, whether this or a webhook comes first.
    """
    if origin is None:
        refuse("say --refund or --chargeback")
    if not gateway_id.startswith(_PREFIXES[origin]):
        refuse(f"--gateway-id of {_WHAT[origin]} begins with {' or '.join(_PREFIXES[origin])}")

    async def work(settings: Settings) -> TakenBackAnswer:
        async with ledger(settings) as pool:
            answer = await take_back(pool, recharge, origin, amount_micros, reason, author=by, gateway_id=gateway_id)
        if isinstance(answer, Booked) and not no_wait:
            await until_shown(settings, {answer.account: answer.ledger_seq})
        return answer

    answer = run(work(Settings.from_env()))
    match answer:
        case Booked():
            balance = answer.balance_micros if as_json else format_micros(answer.balance_micros, answer.currency)
            fields = {"account": answer.account, "recharge": recharge, "entry": answer.entry_id}
            fields |= {"repeated": answer.repeated, "ledger_seq": answer.ledger_seq}
            fields |= {"balance_micros" if as_json else "balance": balance, "currency": answer.currency}
            print_fields(fields, as_json=as_json)
        case NotCredited(exists=True):
            refuse(f"recharge {recharge} is not in the books (see `billing recharges`)")
        case NotCredited():
            refuse(f"there is no recharge {recharge}")
        case Conflict(stored=entry):
            refuse(f"{gateway_id} is booked already: {entry}, for another amount or another recharge")
        case TooMuch():
            refuse(too_much(answer))
        case _:
            refuse(explain_refusal(answer))
