"""Reading balances for admission: at most one call of the store for each, within a deadline, bounded in number.

A partition has a few calls under way at a time. Reads that come beyond share the next one, so the busier the machine,
the fewer calls, and a slow store is never asked more and more at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice

from billing.admission import metrics
from billing.balance.balances import BalanceAnswer, PartitionView, Unknown
from billing.balance.calls import Argument, Reply, Trouble
from billing.balance.client import Client
from billing.balance.keys import KeySpace
from billing.balance.pipelined_calls import PipelinedFunctions
from billing.balance.reader import PAGE, BalanceReader
from billing.ledger.incarnations import Identity
from billing.settings import Topics
from billing.stream.sink import ReadOnly, Unavailable, Uninitialised
from billing.usage.partitioner import home_partition

MAX_WAITING = 2_000
"""Reads under way and waiting; more are Unknown at once."""


UNDER_WAY = 4
"""Calls of one partition at a time. With one alone, a read that just missed it would wait for two of the consumer's."""


class QuickReads(PipelinedFunctions):
    """Functions that ask for a partition's incarnation once, so that a read is one call. The function compares it with
    the one in force, so an old one is noticed, and forgotten."""

    def __init__(self, client: Client, keys: KeySpace, *, timeout_s: float) -> None:
        super().__init__(client, keys, timeout_s=timeout_s, silent_s=2 * timeout_s)
        self._known: dict[int, str] = {}

    async def incarnation(self, partition: int) -> str | ReadOnly | Unavailable | Uninitialised:
        """The incarnation that was in force when it was last asked for."""
        known = self._known.get(partition)
        if known is not None:
            return known
        found = await super().incarnation(partition)
        if isinstance(found, str) and found:
            self._known[partition] = found
        return found

    async def call(
        self, name: str, keys: list[str], incarnation: str, *args: Argument, read_only: bool = False
    ) -> Reply | Trouble:
        """As `Functions.call`; a store that is not what was expected is asked again before the next call."""
        reply = await super().call(name, keys, incarnation, *args, read_only=read_only)
        if isinstance(reply, Uninitialised):
            self._known.clear()
        return reply


class Balances:
    """The balances of one store. `timeline` answers the catalogue's, `identity` what the ledger expects of the store;
    each answers None while it is not known, and then whatever the store says of itself is taken."""

    def __init__(
        self,
        functions: QuickReads,
        topics: Topics,
        *,
        timeline: Callable[[], str | None],
        identity: Callable[[], Identity | None],
        deadline_s: float,
    ) -> None:
        self._functions = functions
        self._topics = topics
        self._timeline = timeline
        self._identity = identity
        self._deadline_s = deadline_s
        self._lanes = [_Lane(partial(self._read_many, partition)) for partition in range(functions.keys.partitions)]
        self._asked = 0

    async def read(self, account: str) -> BalanceAnswer:
        """The account's balance now; Unknown(unavailable) at the deadline. Never raises for a store that is away."""
        if self._asked >= MAX_WAITING:
            answer: BalanceAnswer = Unknown("unavailable", "too many reads at once")
        else:
            answer = await self._read(account)
        if isinstance(answer, Unknown):
            metrics.UNKNOWN.labels(answer.reason).inc()
        return answer

    async def probe(self, partition: int) -> PartitionView | Unknown:
        """Whether a partition can be read at all, within the deadline."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._reader().read_partition(partition)
        except TimeoutError:
            return Unknown("unavailable", "timeout")

    async def close(self) -> None:
        """End the calls under way."""
        await asyncio.gather(*(lane.close() for lane in self._lanes))
        self._functions.close()

    async def _read(self, account: str) -> BalanceAnswer:
        self._asked += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._lanes[home_partition(account, len(self._lanes))].read(account)
        except TimeoutError:
            return Unknown("unavailable", "timeout")
        finally:
            self._asked -= 1

    async def _read_many(self, partition: int, accounts: Sequence[str]) -> dict[str, BalanceAnswer] | Unknown:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._reader().read_many(partition, accounts)
        except TimeoutError:
            return Unknown("unavailable", "timeout")

    def _reader(self) -> BalanceReader:
        expected = self._identity()
        return BalanceReader(
            self._functions,
            self._topics,
            lambda account: home_partition(account, len(self._lanes)),
            # 0 is never minted: before the first incarnation no store is the expected one
            incarnation=None if expected is None else expected.incarnation or 0,
            timeline=self._timeline() if expected is None else expected.timeline,
        )


class _Lane:
    """One partition: a few calls under way, and the reads that share the next one. `ask` never raises for a store that
    is away, and has a deadline."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[dict[str, BalanceAnswer] | Unknown]]) -> None:
        self._ask = ask
        self._waiting: dict[str, list[asyncio.Future[BalanceAnswer]]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def read(self, account: str) -> asyncio.Future[BalanceAnswer]:
        """What a call that begins after this says."""
        answer: asyncio.Future[BalanceAnswer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, []).append(answer)
        if len(self._asking) < UNDER_WAY:
            task = asyncio.create_task(self._ask_while_waiting())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return answer

    async def close(self) -> None:
        """Cancel the calls under way."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _ask_while_waiting(self) -> None:
        while self._waiting:
            accounts = list(islice(self._waiting, PAGE))
            await self._answer({account: self._waiting.pop(account) for account in accounts})

    async def _answer(self, answers: dict[str, list[asyncio.Future[BalanceAnswer]]]) -> None:
        found: dict[str, BalanceAnswer] | Unknown = Unknown("unavailable", "failed")
        try:
            found = await self._ask(list(answers))
        finally:  # a bug ends the task, whose error is logged, but leaves nobody waiting
            for account, waiting in answers.items():
                for answer in waiting:
                    if not answer.done():  # its deadline has passed
                        answer.set_result(found if isinstance(found, Unknown) else found[account])
