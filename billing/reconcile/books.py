"""Comparing the two books, every account, while both go on (S42).

Each partition is gone through in pages: accounts as the ledger has them, the same ones from the balance store, then
what the store has beyond them. What is not comparable yet (behind, missing, being derived) is looked at again until
the deadline, only those accounts: the store first, then the ledger as it was at the store's usage position, so that an
account in constant use is compared as well. Memory is bounded by what is pending.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from billing.balance.balances import Unknown as UnknownBalance
from billing.balance.calls import Functions
from billing.balance.reader import PAGE, BalanceReader
from billing.ledger.database import Connection, Pool, lease
from billing.ledger.incarnations import read_identity
from billing.ledger.queries import query
from billing.reconcile.compare import Different, Equal, Side, stuck
from billing.reconcile.health import expecting_reader
from billing.reconcile.look import AWAY, Look, Looker, ledger_side
from billing.reconcile.progress import Progress, Stage, silent
from billing.reconcile.report import Compared, Report
from billing.settings import Settings
from billing.stream.backoff import Backoff

DEADLINE_S = 30.0
AWAY_S = 3.0  # a store that gives no answer for as long ends the run
PENDING = 10_000  # accounts waiting for another look; beyond it the reading waits


@dataclass(frozen=True, slots=True)
class NotComparable:
    """There is no ledger, or no balance store, to compare with."""

    reason: str


class _StoreAway(Exception):
    """The balance store has given no answer for AWAY_S."""


async def compare_books(
    pool: Pool,
    functions: Functions,
    settings: Settings,
    *,
    deadline_s: float = DEADLINE_S,
    progress: Progress = silent,
) -> Report | NotComparable:
    """Compare every account. Ends at the deadline with what is still behind, but never before each account was
    looked at once; ends early when the store gives no answer for AWAY_S. Raises what asyncpg raises when the ledger
    is away."""
    async with lease(pool) as connection:
        expected = await read_identity(connection)
        if expected is None:
            return NotComparable("the ledger is not migrated")
        if expected.partitions != settings.partitions:
            return NotComparable(f"the ledger has {expected.partitions} partitions, not {settings.partitions}")
        reader = expecting_reader(functions, settings.topics, expected)
        run = _Run(connection, reader, settings, time.monotonic() + deadline_s, progress)
        try:
            return await run.run()
        except _StoreAway as away:
            return NotComparable(f"the balance store does not answer: {away}")


class _Run:
    def __init__(
        self, connection: Connection, reader: BalanceReader, settings: Settings, until: float, progress: Progress
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._looker = Looker(reader, settings.topics.usage)
        self._partitions = settings.partitions
        self._until = until
        self._progress = progress
        self._report = Report()
        self._pending: dict[str, Compared] = {}
        self._away_since: float | None = None

    async def run(self) -> Report:
        started = time.monotonic()
        await self._until_store_answers()
        counts = [await self._count(partition) for partition in range(self._partitions)]
        done, stage = 0, Stage(self._progress, "compare", sum(counts))
        for partition in range(self._partitions):
            known = 0
            async for page in ledger_pages(self._connection, partition):
                look = await self._looker.first(partition, page)
                self._take(look)
                known += look.known
                await self._bound_pending()
                done += len(page)
                stage.at(done)
            async for names in beyond_the_ledger(self._connection, self._reader, partition, known):
                await self._look_closer(partition, [name for name in names if name not in self._pending])
                await self._bound_pending()
        stage.end()
        await self._look_again_until(0)
        self._report.seconds = time.monotonic() - started
        return self._report

    # --- looking -----------------------------------------------------------------------------------------------

    async def _until_store_answers(self) -> None:
        backoff = Backoff(first_seconds=0.1, limit_seconds=0.5)
        self._away_since = time.monotonic()
        while True:
            view = await self._reader.read_partition(0)
            if not (isinstance(view, UnknownBalance) and view.reason == AWAY):
                return self._answered(None)
            self._answered(view)
            await asyncio.sleep(backoff.next_seconds())

    async def _look_closer(self, partition: int, accounts: Sequence[str]) -> None:
        if accounts:
            self._take(await self._looker.closer(self._connection, partition, accounts, self._until))

    def _take(self, look: Look) -> None:
        """Report the accounts, or keep them for another look."""
        self._answered(look.unknown if look.away else None)
        for found in look.found:
            final = isinstance(found.comparison, Equal | Different) or stuck(found.comparison, found.ledger)
            if look.hopeless or final:
                self._pending.pop(found.account, None)
                self._report.add(found)
            else:
                self._pending[found.account] = found

    def _answered(self, away: UnknownBalance | None) -> None:
        """Raises _StoreAway when the store has been away for too long."""
        now = time.monotonic()
        if away is None:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = now
        elif now - self._away_since >= AWAY_S:
            raise _StoreAway(away.detail)

    async def _bound_pending(self) -> None:
        if len(self._pending) > PENDING:
            await self._look_again_until(PENDING // 2)

    async def _look_again_until(self, most: int) -> None:
        """Look at pending accounts again until at most `most` are left, or the deadline settles them as they are."""
        backoff = Backoff(first_seconds=0.1, limit_seconds=1.0)
        while len(self._pending) > most and time.monotonic() < self._until:
            await asyncio.sleep(min(backoff.next_seconds(), max(0.0, self._until - time.monotonic())))
            self._progress("look again", 0, len(self._pending))
            for partition in range(self._partitions):
                names = [name for name, item in self._pending.items() if item.partition == partition]
                for first in range(0, len(names), PAGE):
                    await self._look_closer(partition, names[first : first + PAGE])
        if len(self._pending) > most:
            for found in self._pending.values():
                self._report.add(found)
            self._pending.clear()

    async def _count(self, partition: int) -> int:
        count: int = await self._connection.fetchval(query("reconcile.account_count"), partition)
        return count


async def ledger_pages(connection: Connection, partition: int, after: str = "") -> AsyncIterator[dict[str, Side]]:
    """The accounts of a partition as the ledger has them, in id order, in pages of PAGE."""
    while rows := await connection.fetch(query("reconcile.balances_page"), partition, after, PAGE):
        yield {row["id"]: ledger_side(row) for row in rows}
        after = rows[-1]["id"]


async def beyond_the_ledger(
    connection: Connection, reader: BalanceReader, partition: int, known: int
) -> AsyncIterator[list[str]]:
    """Accounts that the store has and the ledger does not, in lists of at most PAGE. The store is only gone
    through when it does not have just the `known` accounts that were found in both."""
    view = await reader.read_partition(partition)
    if isinstance(view, UnknownBalance) or (view.accounts == known and not view.unknown_accounts):
        return
    names: dict[str, None] = {}
    async for account, _answer in reader.scan_partition(partition):
        if account:
            names[account] = None
        if len(names) == PAGE:
            yield await _not_in_ledger(connection, partition, names)
            names = {}
    if names:
        yield await _not_in_ledger(connection, partition, names)


async def _not_in_ledger(connection: Connection, partition: int, names: dict[str, None]) -> list[str]:
    rows = await connection.fetch(query("reconcile.balances_of"), partition, list(names))
    known = {row["id"] for row in rows}
    return [name for name in names if name not in known]
