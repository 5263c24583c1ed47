"""`billing statement`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from billing.cli.answers import explain_refusal
from billing.cli.common import ledger, print_json, refuse, run
from billing.cli.statement_text import as_csv, as_json, as_text
from billing.ledger.statement import DoesNotAddUp, Month, Statement
from billing.ledger.statement import statement as read_statement
from billing.ledger.terms import NoSuchAccount
from billing.settings import Settings


@click.command()
@click.argument("account_id", metavar="ID")
@click.option("--month", metavar="YYYY-MM", help="Of UTC; this month when left out.")
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
@click.option("--json", "json_", is_flag=True, help="The same as --format json.")
def statement(account_id: str, month: str | None, form: str, json_: bool) -> None:
    """An account's statement of a month, by booking time in UTC.

    Opening balance, usage by destination, recharges, credits, corrections, closing balance. Late usage books into the
    open month, so a final statement never changes.
    """
    wanted = Month.parse(month if month is not None else f"{datetime.now(UTC):%Y-%m}")
    if wanted is None:
        refuse(f"{month!r} is not a month such as 2026-10")

    async def work() -> Statement | NoSuchAccount:
        async with ledger(Settings.from_env()) as pool:
            return await read_statement(pool, account_id, wanted)

    try:
        found = run(work())
    except DoesNotAddUp as error:
        refuse(f"the books contradict themselves ({error}): run `billing ledger verify`")
    if isinstance(found, NoSuchAccount):
        refuse(explain_refusal(found))
    if json_ or form == "json":
        print_json(as_json(found))
    elif form == "csv":
        click.echo(as_csv(found), nl=False)
    else:
        for line in as_text(found):
            click.echo(line)
