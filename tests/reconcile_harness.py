"""A whole deployment inside the test's process: real servers, the real consumers as tasks."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from usage_builders import STRUCTURED, envelope, rates

from billing import operations
from billing.balance.balances import Known, OpenHold, Unknown
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.reader import BalanceReader
from billing.ledger.booking import Booked, adjust, credit
from billing.ledger.database import Pool, fetchrow, open_pool
from billing.ledger.incarnations import Identity
from billing.ledger.opening import open_account
from billing.ledger.queries import query
from billing.ledger.snapshots import positions
from billing.ledger.tariffs import Loaded, load_tariff
from billing.ledger.terms import NewAccount, Opened
from billing.process import Process
from billing.reconcile.books import compare_books
from billing.reconcile.health import StoreHealth, store_health
from billing.reconcile.rebuild import Rebuilt, rebuild
from billing.reconcile.report import Report
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.publisher import Outgoing, Publisher
from billing.usage.partitioner import home_partition
from consumers.inflight import inflight
from consumers.postflight import postflight
from consumers.reconciler import reconciler
from consumers.relay import relay

CONSUMERS: dict[str, Callable[[Process], Awaitable[int]]] = {
    "relay": relay,
    "postflight": postflight,
    "inflight": inflight,
}
OTHERS = {"reconciler": reconciler}  # started by name only: it puts right what a test breaks
PATIENCE_S = 20.0
CREDIT = 20_000_000


def now() -> str:
    """This moment as events have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Deployment:
    """Migrated, with the plan `basic`; consumers run from `start` to `stop`."""

    def __init__(self, settings: Settings, pool: Pool, functions: Functions, log: LogReader, out: Publisher) -> None:
        self.settings = settings
        self.pool = pool
        self.functions = functions
        self._log = log
        self._out = out
        self._running: dict[str, tuple[Process, asyncio.Task[Any]]] = {}
        home = partial(home_partition, partitions=settings.partitions)
        self.reader = BalanceReader(functions, settings.topics, home)
        self.home = home

    def start(self, *names: str) -> None:
        """Run these consumers (all when none is named) as tasks."""
        for name in names or CONSUMERS:
            process = Process(name, self.settings)
            self._running[name] = process, asyncio.ensure_future((CONSUMERS | OTHERS)[name](process))

    async def stop(self, *names: str) -> None:
        """Stop these consumers (all when none is named) as SIGTERM does."""
        for name in names or tuple(self._running):
            process, task = self._running.pop(name)
            process.stopping.set()
            assert await asyncio.wait_for(task, PATIENCE_S) == 0

    def running(self) -> bool:
        """Whether no consumer has ended by itself."""
        return not any(task.done() for _, task in self._running.values())

    async def open(self, account: str | None = None) -> str:
        """A new account with CREDIT, once Redis shows it."""
        account = await self.open_unseen(account)
        await self.until_known(account)
        return account

    async def open_unseen(self, account: str | None = None) -> str:
        """A new account with CREDIT, in the ledger."""
        account = account or f"acct-{uuid.uuid4().hex[:12]}"
        new = NewAccount(account, "USD", "basic", credit_micros=CREDIT)
        assert isinstance(await open_account(self.pool, new, author="test"), Opened)
        return account

    async def credit(self, account: str, amount_micros: int) -> int:
        """Book a credit; its ledger_seq."""
        booked = await credit(self.pool, account, amount_micros, "test", author="test")
        assert isinstance(booked, Booked), booked
        return booked.ledger_seq

    async def debit(self, account: str, amount_micros: int) -> None:
        """Book a correction at the customer's cost."""
        booked = await adjust(self.pool, account, -amount_micros, "test", author="test")
        assert isinstance(booked, Booked), booked

    async def publish(self, account: str, type_: str, data: dict[str, Any]) -> None:
        """One usage event of the account, at this moment."""
        event = envelope(type_, data, subject=account, id=uuid.uuid4().hex, time=now())
        value = json.dumps(event).encode()
        await self._out.publish([Outgoing(self.settings.topics.usage, value, account.encode(), STRUCTURED)])

    async def balance(self, account: str) -> Known:
        """Of an account that must be known."""
        answer = await self.reader.read_balance(account)
        assert isinstance(answer, Known), answer
        return answer

    async def holds(self, account: str) -> list[OpenHold]:
        found = await self.reader.read_holds(account)
        assert not isinstance(found, Unknown), found
        return found

    async def identity(self) -> Identity:
        row = await fetchrow(self.pool, query("reconcile.identity"))
        assert row is not None
        return Identity(row["timeline"], row["partitions"], row["incarnation"])

    async def health(self) -> StoreHealth:
        return await store_health(self.functions, self.settings.topics, await self.identity())

    async def reconcile(self, deadline_s: float = PATIENCE_S) -> Report:
        report = await compare_books(self.pool, self.functions, self.settings, deadline_s=deadline_s)
        assert isinstance(report, Report), report
        return report

    async def rebuild(self) -> Rebuilt:
        """One that must succeed."""
        answer = await rebuild(self.settings)
        assert isinstance(answer, Rebuilt), answer
        return answer

    # --- waiting ---------------------------------------------------------------------------------------------

    async def until_known(self, account: str) -> None:
        async def known() -> bool:
            return isinstance(await self.reader.read_balance(account), Known)

        await self.until(known)

    async def until_settled(self) -> None:
        """Both books are at the end of the log, and every entry has arrived in Redis."""
        await self.until(self._settled)

    async def until_ledger_settled(self) -> None:
        """The ledger is at the end of the log."""
        await self.until(self._ledger_settled)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():
                assert self.running(), "a consumer has ended"
                await asyncio.sleep(0.05)

    async def _ledger_settled(self) -> bool:
        at = await positions(self.pool)
        ends = await self._ends(self.settings.topics.usage)
        return all(at[partition].position.offset >= end for partition, end in ends.items())

    async def _settled(self) -> bool:
        topics = self.settings.topics
        row = await fetchrow(self.pool, "select count(*) as waiting from outbox")
        if row is None or row["waiting"] or not await self._ledger_settled():
            return False
        for topic in (topics.usage, topics.entries):
            for partition, end in (await self._ends(topic)).items():
                view = await self.reader.read_partition(partition)
                if isinstance(view, Unknown) or view.positions[topic].offset < end or view.unknown_accounts:
                    return False
        return True

    async def _ends(self, topic: str) -> dict[int, int]:
        ends = await self._log.ends([(topic, partition) for partition in range(self.settings.partitions)])
        return {partition: end for (_, partition), end in ends.items()}


@asynccontextmanager
async def deployed(settings: Settings) -> AsyncIterator[Deployment]:
    """A fresh deployment in this namespace; no consumer runs yet, all are stopped at the end."""
    assert isinstance(await operations.migrate(settings), operations.Prepared)
    pool = await open_pool(settings.owner_dsn, max_size=4)
    client = open_client(settings.redis_url)
    functions = Functions(client, settings.key_space)
    try:
        async with LogReader(settings.kafka_bootstrap) as log, Publisher(settings.kafka_bootstrap) as out:
            assert isinstance(await load_tariff(pool, "basic", rates(), "USD", author="test"), Loaded)
            deployment = Deployment(settings, pool, functions, log, out)
            try:
                yield deployment
            finally:
                await deployment.stop()
    finally:
        await client.aclose()
        await asyncio.wait_for(pool.close(), 10)
