"""Commands that book something return once Redis shows it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import click

from billing.balance.reader import BalanceReader
from billing.cli.common import refuse, store
from billing.cli.waiting import ShownIn, wait_until_shown
from billing.settings import Settings
from billing.usage.partitioner import home_partition

WAIT_SECONDS = 30.0

no_wait_option = click.option("--no-wait", is_flag=True, help="Do not wait until Redis shows it.")


async def until_shown(settings: Settings, wanted: Mapping[str, int]) -> None:
    """Wait until Redis shows each account of `wanted` at its ledger_seq; ends the command when it does not."""
    async with store(settings) as functions:
        reader = BalanceReader(functions, settings.topics, partial(home_partition, partitions=settings.partitions))
        outcome = await wait_until_shown(reader, wanted, timeout_s=WAIT_SECONDS)
    if not isinstance(outcome, ShownIn):
        refuse(f"booked, but Redis does not show it after {WAIT_SECONDS:.0f} s: {outcome.why}")
