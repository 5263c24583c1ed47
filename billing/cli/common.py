"""What commands share: servers opened and closed, parameters, output as text or JSON, refusals."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import click

from billing.balance.calls import Functions
from billing.balance.client import TIMEOUT_S, open_client
from billing.cli.quiet import quiet
from billing.ledger.database import Pool, open_pool
from billing.money import AmountRefused, parse_micros
from billing.settings import Settings

T = TypeVar("T")


def author() -> str:
    """Who is at the keyboard, for the journal."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
by_option = click.option("--by", required=True, metavar="NAME", help="Who decides this; kept with it.")
me_option = click.option(
    "--by", default=author, metavar="NAME", help="Who decides this; kept with it. By default the user here."
)
reason_option = click.option("--reason", required=True, metavar="TEXT", help="Why; kept with it.")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run an async command body to its end."""
    quiet()
    return asyncio.run(work)


def refuse(reason: str) -> NoReturn:
    """End the command with one line and exit code 2."""
    raise click.ClickException(reason)


class Amount(click.ParamType[int]):
    """A decimal such as 20.00, in units of the account's currency; becomes micro-units."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        micros = parse_micros(str(value))
        if isinstance(micros, AmountRefused):
            self.fail(str(micros), param, ctx)
        return micros


class Moment(click.ParamType[int]):
    """An RFC 3339 time with its offset; becomes ms since 1970 UTC."""

    name = "yyyy-mm-ddThh:mm:ssZ"  # as help shows it, in capitals

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-12-01T00:00:00Z", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no offset; write Z for UTC", param, ctx)
        return int(moment.timestamp() * 1000)


AMOUNT = Amount()
MOMENT = Moment()


@asynccontextmanager
async def ledger(settings: Settings) -> AsyncIterator[Pool]:
    """A pool of connections to the ledger, closed afterwards."""
    pool = await open_pool(settings.postgres_dsn, application_name="billing-cli")
    try:
        yield pool
    finally:
        await asyncio.wait_for(pool.close(), timeout=10)


@asynccontextmanager
async def store(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Functions]:
    """The balance store's functions, its client closed afterwards."""
    client = open_client(settings.redis_url, timeout_s=timeout_s)
    try:
        yield Functions(client, settings.key_space, timeout_s=timeout_s)
    finally:
        await client.aclose()


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in output")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return ", ".join(f"{name} {_shown(each)}" for name, each in value.items()) or "-"
        case _:
            return str(value)


def print_fields(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing: its fields under their names."""
    if as_json:
        print_json(fields)
        return
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        click.echo(f"{name:<{width}}  {_shown(value)}")


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Many things: a JSON array, or a table with a header."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        click.echo(empty)
        return
    columns = list(rows[0])
    cells = [columns, *[[_shown(row[c]) for c in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
