"""`billing account …`: everything here changes or reads the ledger; Redis follows through the outbox."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import click

from billing.cli.account_csv import read_accounts
from billing.cli.account_entries import acknowledge, adjust, credit
from billing.cli.answers import account_fields, explain_refusal, for_people
from billing.cli.common import (
    AMOUNT,
    MOMENT,
    author,
    json_option,
    ledger,
    me_option,
    print_fields,
    print_rows,
    refuse,
    run,
)
from billing.cli.shown import no_wait_option, until_listed, until_shown
from billing.ledger import accounts as books
from billing.ledger.opening import import_accounts, open_account
from billing.ledger.terms import (
    KEEP,
    AlreadyOpen,
    Changed,
    Changes,
    Imported,
    Keep,
    NewAccount,
    NoSuchAccount,
    Opened,
    Unchanged,
)
from billing.settings import Settings

T = TypeVar("T")

why_option = click.option("--reason", default="", metavar="TEXT", help="Why; kept with it.")


@click.group()
def account() -> None:
    """Open, import, show, change and credit accounts."""


@account.command("open")
@click.argument("account_id", metavar="ID")
@click.option("--currency", required=True, help="ISO 4217, for example USD.")
@click.option("--plan", required=True, help="A plan that has a tariff.")
@click.option("--credit", "credit_micros", type=AMOUNT, default="0", show_default=True, help="Opening credit.")
@click.option("--credit-limit", "credit_limit_micros", type=AMOUNT, default="0", show_default=True)
@click.option("--recharge-below", "recharge_below_micros", type=AMOUNT, help="Recharge when the level is below this.")
@click.option("--recharge-by", "recharge_by_micros", type=AMOUNT, help="Charge this much.")
@click.option("--customer", help="The gateway's customer (cus_…).")
@click.option("--payment-method", help="The gateway's payment method (pm_…).")
@click.option("--daily-cap", "daily_cap_micros", type=AMOUNT, help="Money a day at most.")
@no_wait_option
@json_option
def open_(account_id: str, no_wait: bool, as_json: bool, **terms: Any) -> None:
    """Open an account; an identical repeat succeeds, a differing one fails."""
    new = NewAccount(account_id, **terms)
    answer, listed = run(_open(Settings.from_env(), new, wait=not no_wait))
    fields = {
        "account": answer.account,
        "opened": isinstance(answer, Opened),
        "home_partition": answer.home_partition,
        "usage_position": answer.usage_position,
        "ledger_seq": answer.ledger_seq,
        "listed": listed,
    }
    print_fields(fields, as_json=as_json)


async def _open(settings: Settings, new: NewAccount, *, wait: bool) -> tuple[Opened | AlreadyOpen, bool | None]:
    """`listed`: whether it is in the catalogue, None where nobody waited."""
    async with ledger(settings) as pool:
        answer = await open_account(pool, new, author=author())
        if not isinstance(answer, Opened | AlreadyOpen):
            refuse(explain_refusal(answer))
        if not wait:
            return answer, None
        await until_shown(settings, {answer.account: answer.ledger_seq})
        return answer, await until_listed(pool, [answer.account])


@account.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@no_wait_option
@json_option
def import_(file: str, no_wait: bool, as_json: bool) -> None:
    """Open the accounts of a CSV file, all or none; missing columns take their defaults.

    Columns: id,currency,plan,credit,credit_limit,recharge_below,recharge_by,customer,payment_method,daily_cap
    """
    found = read_accounts(file)
    if isinstance(found, str):
        refuse(f"{file}: {found}")
    imported = run(_import(Settings.from_env(), file, found, wait=not no_wait))
    fields = {"opened": imported.opened, "already_open": imported.already_open}
    print_fields(fields, as_json=as_json)


async def _import(settings: Settings, file: str, found: list[NewAccount], *, wait: bool) -> Imported:
    async with ledger(settings) as pool:
        answer = await import_accounts(pool, found, author=author(), reason=f"import of {click.format_filename(file)}")
        if not isinstance(answer, Imported):
            refuse(f"{file}: line {answer.row + 1}: {explain_refusal(answer.refusal)}")  # line 1 is the header
        if wait and answer.opened:
            await until_shown(settings, {new.id: 1 for new in found})
            await until_listed(pool, [new.id for new in found])
    return answer


@account.command("show")
@click.argument("account_id", metavar="ID")
@json_option
def show(account_id: str, as_json: bool) -> None:
    """An account as the ledger has it."""

    async def work() -> books.Account | NoSuchAccount:
        async with ledger(Settings.from_env()) as pool:
            return await books.show(pool, account_id)

    found = run(work())
    if isinstance(found, NoSuchAccount):
        refuse(explain_refusal(found))
    fields = account_fields(found)
    print_fields(fields if as_json else for_people(fields), as_json=as_json)


@account.command("list")
@json_option
def list_(as_json: bool) -> None:
    """All accounts, in order of their ids."""

    async def work() -> list[dict[str, Any]]:
        async with ledger(Settings.from_env()) as pool:
            return [account_fields(found, brief=not as_json) async for found in books.list_accounts(pool)]

    print_rows(run(work()), as_json=as_json, empty="no accounts")


@account.command("set")
@click.argument("account_id", metavar="ID")
@click.option("--plan", help="Takes effect after the lead (600 s), or at --effective.")
@click.option("--effective", "effective_ms", type=MOMENT, help="When the plan begins to price.")
@click.option("--credit-limit", "credit_limit_micros", type=AMOUNT)
@click.option("--recharge-below", "recharge_below_micros", type=AMOUNT)
@click.option("--recharge-by", "recharge_by_micros", type=AMOUNT)
@click.option("--customer")
@click.option("--payment-method")
@click.option("--daily-cap", "daily_cap_micros", type=AMOUNT)
@click.option("--no-recharge", is_flag=True, help="Never recharge it automatically any more; forgets its card.")
@click.option("--status", type=click.Choice(["open", "suspended"]))
@me_option
@why_option
@no_wait_option
@json_option
def set_(
    account_id: str,
    *,
    by: str,
    reason: str,
    no_wait: bool,
    as_json: bool,
    effective_ms: int | None,
    no_recharge: bool,
    **given: Any,
) -> None:
    """Change an account's terms; what is not named stays. Who, why and what it was becomes an entry of it."""
    changes = Changes(effective_ms=effective_ms, **{name: _or_keep(value) for name, value in given.items()})
    if no_recharge:
        changes = replace(changes, recharge_below_micros=None, recharge_by_micros=None, payment_method=None)
    _change(account_id, changes, (by, reason), wait=not no_wait, as_json=as_json)


def _or_keep(value: T | None) -> T | Keep:
    return KEEP if value is None else value


@account.command("close")
@click.argument("account_id", metavar="ID")
@me_option
@why_option
@no_wait_option
@json_option
def close(account_id: str, *, by: str, reason: str, no_wait: bool, as_json: bool) -> None:
    """Close an account. Usage that happens is still charged."""
    _change(account_id, Changes(status="closed"), (by, reason), wait=not no_wait, as_json=as_json)


def _change(account_id: str, changes: Changes, signed: tuple[str, str], *, wait: bool, as_json: bool) -> None:
    by, reason = signed

    async def work(settings: Settings) -> Changed | Unchanged:
        async with ledger(settings) as pool:
            answer = await books.set_account(pool, account_id, changes, author=by, reason=reason)
        if not isinstance(answer, Changed | Unchanged):
            refuse(explain_refusal(answer))
        if wait:
            await until_shown(settings, {account_id: answer.ledger_seq})
        return answer

    answer = run(work(Settings.from_env()))
    effective_ms = answer.plan_effective_ms if isinstance(answer, Changed) else None
    fields = {
        "account": account_id,
        "changed": isinstance(answer, Changed),
        "ledger_seq": answer.ledger_seq,
        "plan_effective_ms": effective_ms,
    }
    print_fields(fields, as_json=as_json)


for command in (credit, adjust, acknowledge):
    account.add_command(command)
