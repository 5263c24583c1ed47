"""`billing dlq`: dead letters listed, explained, added up. Decisions about them are in `dlq_decide.py`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import click
import msgspec

from billing.cli.common import json_option, ledger, print_json, print_rows, refuse, run
from billing.cli.dlq_decide import discard, replay
from billing.cli.dlq_filter import filter_options, make_filter
from billing.cli.dlq_shown import PLACE, Shown, letter_fields, letter_lines, row_of_table, suspended_rows
from billing.deadletters.letters import Letter, Place, actions, letters, letters_at, replayed_from, total
from billing.deadletters.pages import paged
from billing.deadletters.prices import NOBODY, LedgerPrices, Tally, session_of
from billing.ledger.database import Pool
from billing.money import format_micros
from billing.settings import Settings
from schemas.deadletter import UNRESOLVED

LIMIT = 1000


@click.group()
def dlq() -> None:
    """Dead letters: records that no money moved for, with their bytes and reason.

    A letter is named by its place in the log, PARTITION/OFFSET of usage.events.
    """


dlq.add_command(replay)
dlq.add_command(discard)


@dlq.command("list")
@filter_options("--reason")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="At most this many.")
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
@click.option("--table", is_flag=True, help="A table with what each holds up, without the bytes, instead of JSON.")
@json_option
def list_(*, limit: int, everything: bool, table: bool, as_json: bool, **which: Any) -> None:
    """Dead letters as a JSON array, in log order (with and without --json); on stderr how many more there are."""
    wanted = make_filter(**which)

    async def work(settings: Settings) -> tuple[list[dict[str, Any]], int]:
        async with ledger(settings) as pool:
            found: list[Letter] = []
            async for letter in letters(pool, wanted):
                if not everything and len(found) >= limit:
                    break
                found.append(letter)
            count = len(found) if len(found) < limit else await total(pool, wanted)
            if not table:
                return [msgspec.to_builtins(letter.row()) for letter in found], count
            return await _rows(pool, found, settings.partitions), count

    rows, count = run(work(Settings.from_env()))
    if table:
        print_rows(rows, as_json=False, empty="no dead letters")
    else:
        print_json(rows)
    if count > len(rows):
        click.echo(f"{len(rows):,} of {count:,} dead letters; --limit or --all for more", err=True)


async def _rows(pool: Pool, found: list[Letter], partitions: int) -> list[dict[str, Any]]:
    prices = LedgerPrices(pool, partitions)
    worths = await prices.worth(found)
    settled = await prices.settled(worths)
    return [
        row_of_table(letter, worth, settled.get(session_of(worth) or NOBODY))
        for letter, worth in zip(found, worths, strict=True)
    ]


@dlq.command("show")
@click.argument("place", metavar="PARTITION/OFFSET", type=PLACE)
@json_option
def show(place: Place, as_json: bool) -> None:
    """One letter: its attributes and bytes, what it holds up, what was done with it, what a replay would do."""

    async def work(settings: Settings) -> Shown | None:
        async with ledger(settings) as pool:
            found = await letters_at(pool, [place])
            if not found:
                return None
            prices = LedgerPrices(pool, settings.partitions)
            (worth,) = await prices.worth(found)
            settled = await prices.settled([worth])
            (outlook,) = await prices.outlook(found, int(time.time() * 1000))
            done, origin = await actions(pool, place), await replayed_from(pool, place)
            return Shown(found[0], worth, settled.get(session_of(worth) or NOBODY), outlook, done, origin)

    shown = run(work(Settings.from_env()))
    if shown is None:
        refuse(f"there is no dead letter {place}")
    if as_json:
        print_json(letter_fields(shown))
        return
    for line in letter_lines(shown):
        click.echo(line)


@dlq.command("suspended")
@filter_options("--reason")
@json_option
def suspended(*, as_json: bool, **which: Any) -> None:
    """The money that unresolved letters hold up, per reason and currency, each session once, at today's tariffs."""
    wanted = make_filter(**which)
    if wanted.states is None:
        wanted = replace(wanted, states=UNRESOLVED)

    async def work(settings: Settings) -> Tally:
        async with ledger(settings) as pool:
            tally = Tally(LedgerPrices(pool, settings.partitions))
            async for page in paged(letters(pool, wanted)):
                await tally.add(page)
            return tally

    tally = run(work(Settings.from_env()))
    rows = suspended_rows(tally.by_reason, as_json=as_json)
    if as_json:
        sums = [{"currency": c, "amount_micros": micros} for c, micros in tally.totals().items()]
        print_json({"reasons": rows, "suspended": sums})
        return
    print_rows(rows, as_json=False, empty="no unresolved dead letters")
    for currency, micros in tally.totals().items():
        click.echo(f"in all {format_micros(micros, currency)} {currency}")
