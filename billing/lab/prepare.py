"""Bringing a deployment to where traffic can start, through the same functions as the command line."""

from __future__ import annotations

from collections.abc import Sequence

from billing.balance.reader import BalanceReader
from billing.cli.account_csv import read_accounts
from billing.cli.common import ledger, store
from billing.cli.waiting import ShownIn, wait_until_shown
from billing.lab.population import ACCOUNTS_FILE, PLANS, tariff_file
from billing.ledger.database import Pool
from billing.ledger.opening import import_accounts
from billing.ledger.tariffs import AlreadyLoaded, Loaded, load_tariff
from billing.ledger.terms import Imported, NewAccount
from billing.operations import Prepared, migrate
from billing.rating.tariff_csv import TariffRefused, parse_tariff
from billing.settings import Settings
from billing.usage.partitioner import home_partition

AUTHOR = "lab"


class NotPrepared(RuntimeError):
    """A step was refused; the message says which and why."""


async def prepare(settings: Settings) -> None:
    """What `billing migrate` does, and the tariff of each plan. Raises NotPrepared."""
    answer = await migrate(settings)
    if not isinstance(answer, Prepared):
        raise NotPrepared(f"migrate: {answer.reason}")
    async with ledger(settings) as pool:
        for plan, currency in PLANS.items():
            await _load_tariff(pool, plan, currency)


async def _load_tariff(pool: Pool, plan: str, currency: str) -> None:
    rates = parse_tariff(tariff_file(plan).read_bytes())
    if isinstance(rates, TariffRefused):
        raise NotPrepared(f"tariff {plan}: {rates}")
    answer = await load_tariff(pool, plan, rates, currency, author=AUTHOR)
    if not isinstance(answer, Loaded | AlreadyLoaded):
        raise NotPrepared(f"tariff {plan}: {answer}")


def committed_accounts() -> list[NewAccount]:
    """The demo's accounts, as `billing account import` reads them. Raises NotPrepared."""
    found = read_accounts(str(ACCOUNTS_FILE))
    if isinstance(found, str):
        raise NotPrepared(f"{ACCOUNTS_FILE}: {found}")
    return found


async def open_accounts(
    settings: Settings, accounts: Sequence[NewAccount], *, timeout_seconds: float | None = 30
) -> None:
    """Open the accounts in the ledger and wait until Redis shows them all (None: do not wait). Raises NotPrepared."""
    async with ledger(settings) as pool:
        answer = await import_accounts(pool, accounts, author=AUTHOR)
    if not isinstance(answer, Imported):
        raise NotPrepared(f"accounts: {answer}")
    if timeout_seconds is None:
        return
    async with store(settings) as functions:
        reader = BalanceReader(functions, settings.topics, lambda account: home_partition(account, settings.partitions))
        shown = await wait_until_shown(reader, {new.id: 1 for new in accounts}, timeout_s=timeout_seconds)
    if not isinstance(shown, ShownIn):
        raise NotPrepared(f"accounts: Redis does not show all of them: {shown.why}")
