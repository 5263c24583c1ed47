"""`billing explain ID`: every entry and hold that makes up a balance, from both books, and whether they agree."""

from __future__ import annotations

import asyncio

import asyncpg
import click

from billing.balance.balances import NoSuchAccount
from billing.cli.common import json_option, ledger, print_json, refuse, run, store
from billing.cli.errors import explain as one_line
from billing.cli.explain_json import fields
from billing.cli.explain_text import as_text
from billing.cli.store_view import reader_of
from billing.reconcile.compare import Different
from billing.reconcile.explain import Away, LedgerAnswer, LedgerView, StoreView, judge, look_at_ledger, look_at_store
from billing.settings import Settings

_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
ASK_SECONDS = 30.0


@click.command()
@click.argument("account_id", metavar="ID")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Entries to show.")
@json_option
def explain(account_id: str, limit: int, as_json: bool) -> int:
    """Why an account's balance is what it is: both books, entry by entry, and whether they agree.

    Unknown is an answer, never zero. Exit code 1 when the books differ where they have read the same.
    """

    async def work(settings: Settings) -> tuple[LedgerAnswer, StoreView]:
        async with store(settings) as functions:
            seen = await look_at_store(await reader_of(settings, functions), account_id)
        try:
            async with asyncio.timeout(ASK_SECONDS), ledger(settings) as pool:
                return await look_at_ledger(pool, account_id, seen, limit), seen
        except _AWAY as error:
            return Away(one_line(error) or type(error).__name__), seen

    books, seen = run(work(Settings.from_env()))
    if books is None and isinstance(seen.balance, NoSuchAccount):
        refuse(f"there is no account {account_id!r}")
    comparison = judge(books, seen) if isinstance(books, LedgerView) else None
    if as_json:
        print_json(fields(account_id, books, seen, comparison))
    else:
        for line in as_text(account_id, books, seen, comparison):
            click.echo(line)
    return 1 if isinstance(comparison, Different) else 0
