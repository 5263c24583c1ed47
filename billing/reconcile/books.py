"""Comparing the two books, every account, while both go on (S42).

Each partition is gone through in pages: accounts as the ledger has them, the same ones from the balance store, then
what the store has beyond them. What is not comparable yet (behind, missing, being derived) is looked at again until
the deadline, only those accounts: the store first, then the ledger as it was at the store's usage position, so that an
account in constant use is compared as well. Memory is bounded by what is pending.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billing.balance.balances import BalanceAnswer, Known, NoSuchAccount
from billing.balance.balances import Unknown as UnknownBalance
from billing.balance.calls import Functions
from billing.balance.reader import PAGE, BalanceReader
from billing.ledger.database import Connection, Pool, lease
from billing.ledger.incarnations import read_identity
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.reconcile.compare import Different, Equal, Side, Unknown, compare
from billing.reconcile.health import expecting_reader
from billing.reconcile.progress import Progress, Stage, silent
from billing.reconcile.report import Compared, Report
from billing.settings import Settings
from billing.stream.backoff import Backoff

DEADLINE_S = 30.0
POLL_S = 0.05
PENDING = 10_000  # accounts waiting for another look; beyond it the reading waits


@dataclass(frozen=True, slots=True)
class NotComparable:
    """There is no ledger to compare with."""

    reason: str


async def compare_books(
    pool: Pool,
    functions: Functions,
    settings: Settings,
    *,
    deadline_s: float = DEADLINE_S,
    progress: Progress = silent,
) -> Report | NotComparable:
    """Compare every account. Ends at the deadline with what is still behind, but never before each account was
    looked at once. Raises what asyncpg raises when the ledger is away; a store that is away is Unknown."""
    async with lease(pool) as connection:
        expected = await read_identity(connection)
        if expected is None:
            return NotComparable("the ledger is not migrated")
        if expected.partitions != settings.partitions:
            return NotComparable(f"the ledger has {expected.partitions} partitions, not {settings.partitions}")
        reader = expecting_reader(functions, settings.topics, expected)
        run = _Run(connection, reader, settings, time.monotonic() + deadline_s, progress)
        return await run.run()


class _Run:
    def __init__(
        self, connection: Connection, reader: BalanceReader, settings: Settings, until: float, progress: Progress
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._usage_topic = settings.topics.usage
        self._partitions = settings.partitions
        self._until = until
        self._progress = progress
        self._report = Report()
        self._pending: dict[str, Compared] = {}

    async def run(self) -> Report:
        started = time.monotonic()
        counts = [await self._count(partition) for partition in range(self._partitions)]
        done, stage = 0, Stage(self._progress, "compare", sum(counts))
        for partition in range(self._partitions):
            known = 0
            async for page in self._ledger_pages(partition):
                known += await self._judge(partition, page)
                await self._bound_pending()
                done += len(page)
                stage.at(done)
            async for names in self._beyond_the_ledger(partition, known):
                await self._judge_again(partition, names)
                await self._bound_pending()
        stage.end()
        await self._look_again_until(0)
        self._report.seconds = time.monotonic() - started
        return self._report

    # --- looking -----------------------------------------------------------------------------------------------

    async def _judge(self, partition: int, ledger: Mapping[str, Side]) -> int:
        """A first look at accounts of the ledger. Returns how many of them have a balance in the store too."""
        answers = await self._reader.read_many(partition, list(ledger))
        store = {account: _answer(answers, account) for account in ledger}
        for account, answer in store.items():
            self._take(partition, account, ledger.get(account), answer, hopeless=_hopeless(answers))
        return sum(isinstance(answer, Known) for answer in store.values())

    async def _judge_again(self, partition: int, accounts: Sequence[str]) -> None:
        """A closer look at accounts of either book."""
        answers = await self._reader.read_many(partition, accounts)
        at = _usage_position(answers, self._usage_topic)
        same_usage = at is not None and await self._ledger_reaches(partition, at)
        rows = await (
            self._connection.fetch(query("reconcile.balances_below"), partition, list(accounts), at)
            if same_usage
            else self._connection.fetch(query("reconcile.balances_of"), partition, list(accounts))
        )
        ledger = {row["id"]: _ledger_side(row) for row in rows}
        for account in accounts:
            answer = _answer(answers, account)
            self._take(
                partition,
                account,
                ledger.get(account),
                answer,
                same_usage=same_usage,
                hopeless=_hopeless(answers),
            )

    def _take(
        self,
        partition: int,
        account: str,
        ledger: Side | None,
        answer: BalanceAnswer,
        *,
        hopeless: bool,
        same_usage: bool = False,
    ) -> None:
        """Report an account, or keep it for another look."""
        side = _store_side(answer)
        comparison = compare(ledger, side, same_usage=same_usage)
        found = Compared(account, partition, comparison, ledger, side if isinstance(side, Side) else None)
        if not (isinstance(comparison, Equal | Different) or hopeless):
            self._pending[account] = found
            return
        self._pending.pop(account, None)
        self._report.add(found)

    async def _ledger_reaches(self, partition: int, offset: int) -> bool:
        """Whether the ledger has settled everything below a usage offset, waiting for it until the deadline."""
        while True:
            reached: int = await self._connection.fetchval(query("reconcile.usage_position"), USAGE_TOPIC, partition)
            if reached >= offset or time.monotonic() >= self._until:
                return reached >= offset
            await asyncio.sleep(POLL_S)

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
                    await self._judge_again(partition, names[first : first + PAGE])
        if len(self._pending) > most:
            for found in self._pending.values():
                self._report.add(found)
            self._pending.clear()

    # --- the two books ---------------------------------------------------------------------------------------

    async def _count(self, partition: int) -> int:
        count: int = await self._connection.fetchval(query("reconcile.account_count"), partition)
        return count

    async def _ledger_pages(self, partition: int) -> AsyncIterator[dict[str, Side]]:
        after = ""
        while rows := await self._connection.fetch(query("reconcile.balances_page"), partition, after, PAGE):
            yield {row["id"]: _ledger_side(row) for row in rows}
            after = rows[-1]["id"]

    async def _beyond_the_ledger(self, partition: int, known: int) -> AsyncIterator[list[str]]:
        """Accounts that the store has and the ledger does not, in lists of at most PAGE. The store is only gone
        through when it does not have just the `known` accounts that were found in both."""
        view = await self._reader.read_partition(partition)
        if isinstance(view, UnknownBalance) or (view.accounts == known and not view.unknown_accounts):
            return
        names: dict[str, None] = {}
        async for account, _answer in self._reader.scan_partition(partition):
            if account:
                names[account] = None
            if len(names) == PAGE:
                yield await self._not_in_ledger(partition, names)
                names = {}
        if names:
            yield await self._not_in_ledger(partition, names)

    async def _not_in_ledger(self, partition: int, names: dict[str, None]) -> list[str]:
        rows = await self._connection.fetch(query("reconcile.balances_of"), partition, list(names))
        known = {row["id"] for row in rows}
        return [name for name in names if name not in known and name not in self._pending]


def _answer(answers: dict[str, BalanceAnswer] | UnknownBalance, account: str) -> BalanceAnswer:
    return answers if isinstance(answers, UnknownBalance) else answers[account]


def _hopeless(answers: dict[str, BalanceAnswer] | UnknownBalance) -> bool:
    """Where the store as a whole is unknown another look changes nothing, unless it is only away."""
    return isinstance(answers, UnknownBalance) and answers.reason != "unavailable"


def _usage_position(answers: dict[str, BalanceAnswer] | UnknownBalance, topic: str) -> int | None:
    """The store's usage position at the moment of these answers; None when no balance came with it."""
    if isinstance(answers, UnknownBalance):
        return None
    known = next((answer for answer in answers.values() if isinstance(answer, Known)), None)
    return None if known is None else known.positions[topic].offset


def _ledger_side(row: Any) -> Side:
    last = row["last_charged_offset"]
    return Side(row["balance_micros"], row["ledger_seq"], -1 if last is None else last)


def _store_side(answer: BalanceAnswer) -> Side | Unknown | None:
    match answer:
        case Known():
            balance_micros = answer.credit_micros - answer.used_micros
            return Side(balance_micros, answer.ledger_seq, answer.last_charge_offset)
        case UnknownBalance():
            return Unknown(answer.reason)
        case NoSuchAccount():
            return None
