"""Commands that book something return once Redis shows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

import click

from billing.balance.reader import BalanceReader
from billing.cli.common import refuse, store
from billing.cli.waiting import ShownIn, wait_until_shown
from billing.ledger.database import Pool, fetchrow
from billing.ledger.queries import query
from billing.settings import Settings
from billing.usage.partitioner import home_partition

WAIT_SECONDS = 30.0
LISTED_SECONDS = 10.0
POLL_SECONDS = 0.05

no_wait_option = click.option("--no-wait", is_flag=True, help="Do not wait until Redis shows it.")


async def until_shown(settings: Settings, wanted: Mapping[str, int]) -> None:
    """Wait until Redis shows each account of `wanted` at its ledger_seq; ends the command when it does not."""
    async with store(settings) as functions:
        reader = BalanceReader(functions, settings.topics, partial(home_partition, partitions=settings.partitions))
        outcome = await wait_until_shown(reader, wanted, timeout_s=WAIT_SECONDS)
    if not isinstance(outcome, ShownIn):
        refuse(f"booked, but Redis does not show it after {WAIT_SECONDS:.0f} s: {outcome.why}")


async def until_listed(pool: Pool, accounts: Sequence[str]) -> bool:
    """Wait until the relay has published the accounts in the catalogue, which admission and the consumers price by and
    read at once. False, and said so, when it has not within LISTED_SECONDS: the accounts are open all the same."""
    until = time.monotonic() + LISTED_SECONDS
    while (row := await fetchrow(pool, query("operations.unlisted"), list(accounts))) is not None and row[0]:
        if time.monotonic() >= until:
            why = "their usage waits for it, and admission has no price (is the relay running?)"
            click.echo(f"billing: not in the catalogue after {LISTED_SECONDS:.0f} s: {why}", err=True)
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
