"""Reading balances for admission: one call of the store for each, within a deadline, bounded in number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from billing.admission import metrics
from billing.balance.balances import BalanceAnswer, PartitionView, Unknown
from billing.balance.calls import Argument, Functions, Reply, Trouble
from billing.balance.client import Client
from billing.balance.keys import KeySpace
from billing.balance.reader import BalanceReader
from billing.ledger.incarnations import Identity
from billing.settings import Topics
from billing.stream.sink import ReadOnly, Unavailable, Uninitialised
from billing.usage.partitioner import home_partition

CONNECTIONS = 32
"""Reads at one time; the client's pool must have as many, and one for the probe."""

MAX_WAITING = 1_000
"""Reads that wait for a connection; more are Unknown at once."""


class RemembersIncarnations(Functions):
    """Asks for a partition's incarnation once, so that a read is one call. The function compares it with the one in
    force, so an old one is noticed, and forgotten."""

    def __init__(self, client: Client, keys: KeySpace, *, timeout_s: float) -> None:
        super().__init__(client, keys, timeout_s=timeout_s)
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
        functions: Functions,
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
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._asked = 0

    async def read(self, account: str) -> BalanceAnswer:
        """The account's balance now; Unknown(unavailable) at the deadline. Never raises for a store that is away."""
        if self._asked >= CONNECTIONS + MAX_WAITING:
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

    async def _read(self, account: str) -> BalanceAnswer:
        self._asked += 1
        try:
            async with asyncio.timeout(self._deadline_s), self._free:
                return await self._reader().read_balance(account)
        except TimeoutError:
            return Unknown("unavailable", "timeout")
        finally:
            self._asked -= 1

    def _reader(self) -> BalanceReader:
        expected, partitions = self._identity(), self._functions.keys.partitions
        return BalanceReader(
            self._functions,
            self._topics,
            lambda account: home_partition(account, partitions),
            # 0 is never minted: before the first incarnation no store is the expected one
            incarnation=None if expected is None else expected.incarnation or 0,
            timeline=self._timeline() if expected is None else expected.timeline,
        )
