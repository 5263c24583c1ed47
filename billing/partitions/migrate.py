"""From one number of partitions to another (S16): what moves, in which order, and how it goes on after it was ended.

1. Everything in the log is settled, in the old partitions, by the command itself: post-flight cannot run once
   partitions were added.
2. The topics get their partitions. From here on every process refuses to run.
3. What was written meanwhile is settled, and accounts move, in one transaction (`moving.py`).
4. A relay publishes what was left, and the accounts' new places; a heartbeat says when all of them are told.
5. The balance store is rebuilt for the new number, with the holds that are open in the log of the old partitions.
6. The ledger is made for the new number, and processes with that setting run.

Nothing is remembered but what the servers say: the topics' partitions, and `moving_to` in the ledger. The same command
goes on from wherever it was ended, and doing a step twice does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from billing.ledger.database import Connection, Pool, connect, open_pool
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.migrate import SIGNALS_TOPIC, USAGE_TOPIC
from billing.ledger.ownership import OtherPartitions
from billing.ledger.queries import query
from billing.partitions.draining import Halted, settle_to_the_end
from billing.partitions.kafka_side import add_partitions
from billing.partitions.look import Standing, in_the_way, look
from billing.partitions.moving import TIMEOUT_S, NotMoved, Order, move_accounts
from billing.partitions.publishing import Stuck, relaying, until_published
from billing.reconcile.rebuild import RebuildRefused, rebuild
from billing.reconcile.replay import CatalogueNotReady
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.topics import TopicsRefused, ensure_topics
from billing.usage.partitioner import home_partition

Said: TypeAlias = Callable[[str, str], None]
"""Hears the name of each step when it is done, and what it did."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a migration would do. `refusals` are in its way; `moving` of `accounts` change their home."""

    standing: Standing
    to: int
    accounts: int
    moving: int
    refusals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Migrated:
    """Processes may run, with BILLING_PARTITIONS=`to`. `incarnation` is that of the balance store, None where there was
    nothing to do."""

    to: int
    incarnation: int | None


@dataclass(frozen=True, slots=True)
class NotMigrated:
    """Why not. What was done stays done: the same command goes on from there."""

    reasons: tuple[str, ...]


class _Refused(Exception):
    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


async def plan(settings: Settings, to: int) -> Planned:
    """What `migrate` would do; changes nothing. Raises what asyncpg raises, LogAway, LookupError."""
    async with _Servers.open(settings) as servers:
        standing = await look(settings, servers.pool, servers.reader)
        refusals = await in_the_way(settings, servers.pool, servers.owner, standing, to)
        accounts = moving = 0
        async with servers.owner.transaction(readonly=True):
            async for row in servers.owner.cursor(query("partitions.homes"), prefetch=10_000, timeout=TIMEOUT_S):
                accounts += 1
                moving += home_partition(row["id"], to) != row["home_partition"]
        return Planned(standing, to, accounts, moving, tuple(refusals))


async def migrate(settings: Settings, to: int, *, author: str, reason: str, said: Said) -> Migrated | NotMigrated:
    """Bring the deployment to `to` partitions, or go on with that. Raises what asyncpg raises, LogAway, OutOfRange,
    LookupError: run it again then."""
    async with _Servers.open(settings) as servers:
        try:
            return await _Work(settings, servers, to, author, reason, said).run()
        except _Refused as refused:
            return NotMigrated(refused.reasons)
        except (Stuck, Halted, OtherPartitions, CatalogueNotReady) as error:
            return NotMigrated((str(error),))


@dataclass(frozen=True, slots=True)
class _Servers:
    owner: Connection
    pool: Pool
    reader: LogReader

    @staticmethod
    @asynccontextmanager
    async def open(settings: Settings) -> AsyncIterator[_Servers]:
        owner = await connect(settings.owner_dsn, command_timeout_s=TIMEOUT_S, application_name="billing-partitions")
        pool = await open_pool(settings.postgres_dsn, max_size=6, application_name="billing-partitions")
        try:
            async with LogReader(settings.kafka_bootstrap, client_id="billing-partitions-reader") as reader:
                yield _Servers(owner, pool, reader)
        finally:
            await owner.close(timeout=5)
            await asyncio.wait_for(pool.close(), timeout=5)


@dataclass(frozen=True, slots=True)
class _Work:
    settings: Settings
    servers: _Servers
    to: int
    author: str
    reason: str
    said: Said

    @property
    def _new(self) -> Settings:
        return replace(self.settings, partitions=self.to)

    async def run(self) -> Migrated:
        owner = self.servers.owner
        if not await owner.fetchval(query("partitions.lock"), LOCK_SPACE, Lock.PARTITIONS):
            raise _Refused("another migration is under way")
        if not await owner.fetchval(query("partitions.lock"), LOCK_SPACE, Lock.RECONCILER):
            raise _Refused("the reconciler runs: stop it")
        standing = await look(self.settings, self.servers.pool, self.servers.reader)
        if standing.moving_to is None and {standing.ledger, *standing.topics.values()} == {self.to}:
            return Migrated(self.to, None)
        reasons = await in_the_way(self.settings, self.servers.pool, owner, standing, self.to)
        if reasons:
            raise _Refused(*reasons)
        if standing.moving_to is None:
            await self._move(standing)
        return await self._finish()

    async def _move(self, standing: Standing) -> None:
        old = replace(self.settings, partitions=standing.ledger)
        await self._settle(old, "settled")
        added = await add_partitions(self.settings, self.to, standing.topics)
        ready = await ensure_topics(self._new)
        if isinstance(ready, TopicsRefused):
            raise _Refused(*ready.reasons)
        self.said("topics", f"{', '.join(added) or 'none'} to {self.to} partitions")
        await self._settle(old, "settled again")
        starts = await self._starts(standing.ledger)
        order = Order(standing.ledger, self.to, self.author, self.reason, starts)
        moved = await move_accounts(self.servers.owner, order)
        if isinstance(moved, NotMoved):
            raise _Refused(moved.reason)
        self.said("moved", f"{moved.accounts} accounts")

    async def _settle(self, old: Settings, step: str) -> None:
        async with relaying(old, self.servers.pool, self.servers.reader):
            records = await settle_to_the_end(old, self.servers.pool, self.servers.reader)
        self.said(step, f"{records} records")

    async def _starts(self, before: int) -> dict[tuple[str, int], int]:
        topics = self.settings.topics
        found = {}
        for logical, topic in ((USAGE_TOPIC, topics.usage), (SIGNALS_TOPIC, topics.signals)):
            for partition in range(before, self.to):
                found[logical, partition] = (await self.servers.reader.bounds(topic, partition)).start
        return found

    async def _finish(self) -> Migrated:
        new, pool, reader = self._new, self.servers.pool, self.servers.reader
        async with relaying(new, pool, reader):
            await until_published(new, pool, reader)
            self.said("published", "entries, and the homes of all accounts")
            rebuilt = await rebuild(new, reason=f"{self.to} partitions", moving=True)
        if isinstance(rebuilt, RebuildRefused):
            raise _Refused(rebuilt.reason)
        self.said("rebuilt", f"{rebuilt.accounts} accounts, {rebuilt.holds} open holds")
        await self.servers.owner.execute(query("partitions.complete"), self.to)
        self.said("complete", f"set BILLING_PARTITIONS={self.to} for every process")
        return Migrated(self.to, rebuilt.incarnation)
