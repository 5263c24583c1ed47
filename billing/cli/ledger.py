"""`billing ledger`, `billing usage`: what the ledger has."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from billing.cli.answers import explain_refusal
from billing.cli.archive import archive, archives
from billing.cli.common import json_option, ledger, print_fields, print_json, print_rows, refuse, run
from billing.cli.restored import restored
from billing.cli.verifying import verifying
from billing.ledger import accounts as books
from billing.ledger import verify as verification
from billing.ledger.terms import NoSuchAccount
from billing.ledger.usage import usage_of
from billing.money import format_micros
from billing.settings import Settings


@click.group("ledger")
def ledger_group() -> None:
    """The books in PostgreSQL."""


ledger_group.add_command(archive)
ledger_group.add_command(archives)
ledger_group.add_command(restored)


@ledger_group.command("balance")
@click.argument("account_id", metavar="ID")
@json_option
def balance(account_id: str, as_json: bool) -> None:
    """An account's balance in the ledger: settled usage only, holds left out."""

    async def work() -> books.Account | NoSuchAccount:
        async with ledger(Settings.from_env()) as pool:
            return await books.show(pool, account_id)

    found = run(work())
    if isinstance(found, NoSuchAccount):
        refuse(explain_refusal(found))
    fields: dict[str, Any] = {"account": found.id}
    if as_json:
        fields |= {"balance_micros": found.balance_micros}
    else:
        fields |= {"balance": format_micros(found.balance_micros, found.currency)}
    fields |= {"currency": found.currency, "ledger_seq": found.ledger_seq}
    print_fields(fields, as_json=as_json)


@ledger_group.command("verify")
@json_option
def verify(as_json: bool) -> int:
    """Prove the books: zero sums, balances equal postings, usage equals journal. Exit code 1 when a check fails."""

    async def work(show: verification.Progress) -> list[verification.Check]:
        async with ledger(Settings.from_env()) as pool:
            return await verification.verify(pool, show)

    with verifying(quiet=as_json) as show:
        checks = run(work(show))
    passed = all(check.passed for check in checks)
    if as_json:
        print_json({"ok": passed, "checks": [{**asdict(check), "passed": check.passed} for check in checks]})
    return 0 if passed else 1


@click.command()
@click.argument("account_id", metavar="ID")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many, the newest first.")
@json_option
def usage(account_id: str, limit: int | None, as_json: bool) -> None:
    """An account's settled sessions, the newest first."""

    async def work() -> list[dict[str, Any]] | NoSuchAccount:
        async with ledger(Settings.from_env()) as pool:
            account = await books.show(pool, account_id)
            if isinstance(account, NoSuchAccount):
                return account
            found = []
            async for session in usage_of(pool, account_id):
                found.append(asdict(session))
                if limit is not None and len(found) >= limit:
                    break
            return found

    rows = run(work())
    if isinstance(rows, NoSuchAccount):
        refuse(explain_refusal(rows))
    if not as_json:
        rows = [_brief(row) for row in rows]
    print_rows(rows, as_json=as_json, empty="no settled usage")


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "session": row["session_id"],
        "kind": row["tariff_kind"],
        "to": row["destination"],
        "quantity": row["quantity"],
        "status": row["status"],
        "amount": format_micros(row["amount_micros"], row["currency"]),
        "offset": f"{row['partition']}/{row['log_offset']}",
    }
