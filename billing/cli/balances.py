"""`billing balance` and `billing holds`: what Redis shows, known or not."""

from __future__ import annotations

from typing import Any

import click

from billing.balance.balances import Known, NoSuchAccount, OpenHold, Unknown
from billing.cli.answers import for_people
from billing.cli.common import json_option, ledger, print_fields, print_rows, refuse, run, store
from billing.cli.store_view import missing_in_ledger, reader_of
from billing.ledger import accounts as books
from billing.ledger.terms import NoSuchAccount as NotInLedger
from billing.money import format_micros
from billing.settings import Settings

_MICROS = ("credit_micros", "used_micros", "held_micros", "available_micros")


@click.command()
@click.argument("account_id", metavar="ID")
@json_option
def balance(account_id: str, as_json: bool) -> None:
    """An account's live balance. Unknown is an answer, not an error: its amounts are null, never zero."""
    fields = run(_balance(Settings.from_env(), account_id))
    if not as_json:
        fields = for_people(fields)
    print_fields(fields, as_json=as_json)


async def _balance(settings: Settings, account_id: str) -> dict[str, Any]:
    async with store(settings) as functions:
        answer = await (await reader_of(settings, functions)).read_balance(account_id)
    if isinstance(answer, NoSuchAccount):
        answer = await _absent(settings, account_id)
    elif isinstance(answer, Unknown) and await missing_in_ledger(settings, account_id):
        refuse(f"there is no account {account_id!r}")
    if isinstance(answer, Unknown):
        reason = f"{answer.reason}: {answer.detail}" if answer.detail else answer.reason
        nothing = dict.fromkeys(("currency", *_MICROS, "ledger_seq", "positions"))
        return {"account": account_id, "status": "unknown", "reason": reason, **nothing}
    return {
        "account": account_id,
        "status": "known",
        "reason": None,
        "currency": answer.currency,
        "credit_micros": answer.credit_micros,
        "used_micros": answer.used_micros,
        "held_micros": answer.held_micros,
        "available_micros": answer.available_micros,
        "ledger_seq": answer.ledger_seq,
        "positions": {topic: position.offset for topic, position in answer.positions.items()},
        "account_status": answer.status,
        "credit_limit_micros": answer.credit_limit_micros,
        "incarnation": answer.incarnation,
    }


async def _absent(settings: Settings, account_id: str) -> Unknown:
    """Redis does not have it: unknown where the ledger has it, else there is no such account anywhere."""
    async with ledger(settings) as pool:
        found = await books.show(pool, account_id)
    if isinstance(found, NotInLedger):
        refuse(f"there is no account {account_id!r}")
    return Unknown("not_yet_shown", "the ledger has the account, Redis does not show it yet")


@click.command()
@click.argument("account_id", metavar="ID")
@json_option
def holds(account_id: str, as_json: bool) -> None:
    """An account's open holds; lease ends are in its partition's log time."""

    async def work(settings: Settings) -> tuple[list[OpenHold], str]:
        async with store(settings) as functions:
            reader = await reader_of(settings, functions)
            balance = await reader.read_balance(account_id)
            if isinstance(balance, NoSuchAccount):
                await _absent(settings, account_id)
            found = await reader.read_holds(account_id) if isinstance(balance, Known) else balance
        if isinstance(found, Unknown | NoSuchAccount) or not isinstance(balance, Known):
            refuse(
                f"holds of {account_id} are unknown: {getattr(found, 'reason', 'Redis does not show the account yet')}"
            )
        return found, balance.currency

    found, currency = run(work(Settings.from_env()))
    rows = []
    for hold in found:
        amount: dict[str, Any] = {"amount_micros": hold.amount_micros}
        if not as_json:
            amount = {"amount": format_micros(hold.amount_micros, currency)}
        row = {"kind": hold.kind, "session": hold.session, **amount, "elapsed": hold.elapsed}
        rows.append({**row, "lease_end_ms": hold.lease_end_ms})
    print_rows(rows, as_json=as_json, empty="no open holds")
