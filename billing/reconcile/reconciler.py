"""The reconciler: looks at accounts without end. Those that were just charged or changed first, those that did not
agree again, and all of them in the background at a bounded rate.

One of several processes acts, by an advisory lock; the others stand by. Everything that it knows is in the ledger, so
it may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import asyncpg
import structlog

from billing.balance.calls import Functions
from billing.balance.mending import mend
from billing.balance.reader import PAGE, BalanceReader
from billing.ledger.database import Connection, Pool, connect
from billing.ledger.history import forgotten, suspect
from billing.ledger.incarnations import read_identity
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.queries import query
from billing.ledger.trouble import Trouble, describe, trouble_of
from billing.reconcile import metrics
from billing.reconcile.cases import Cases
from billing.reconcile.damaged_holds import damaged_holds
from billing.reconcile.health import expecting_reader
from billing.reconcile.judge import Judgement, Watch, judge, kind_of
from billing.reconcile.look import Look, Looker
from billing.reconcile.putting_right import Recorded, record_and_repair
from billing.reconcile.repeated import repeated_session
from billing.reconcile.report import Compared
from billing.reconcile.sweep import Sweep, SweepStep
from billing.settings import Settings
from billing.stream.backoff import Backoff
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway

log = structlog.get_logger(__name__)

TICK_S = 0.25
HOT = 2_000  # accounts of one tick that were charged or changed; the sweep finds the others
PAGES = 50  # of the sweep in one tick
WATCHED = 10_000
WAIT_S = 1.0  # how long a closer look may wait for the ledger
REPAIRS_PER_MINUTE = 60  # more than these are not single accounts gone wrong
TAIL_PAUSE_S = 30.0  # between two looks at what the ledger had published
UNWELL_S = 30.0
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, LogAway)


class Reconciler:
    """`per_second` bounds the accounts of the background sweep."""

    def __init__(
        self, pool: Pool, functions: Functions, reader: LogReader, settings: Settings, *, per_second: int
    ) -> None:
        self._pool = pool
        self._functions = functions
        self._log = reader
        self._settings = settings
        self._per_second = per_second
        self._watches: dict[str, Watch] = {}
        self._cases = Cases(pool)
        self._newest: int | None = None  # journal entries up to here were looked at
        self._repairs: list[float] = []
        self._tail_at = 0.0
        self._well_at = 0.0
        self._state = "starting"

    def health(self) -> dict[str, Any]:
        """Healthy while rounds succeed, or another one acts."""
        healthy = time.monotonic() - self._well_at < UNWELL_S
        return {"healthy": healthy, "state": self._state, "open": len(self._cases), "watched": len(self._watches)}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Servers that are away are waited for."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=5.0)
        while not stop.is_set():
            try:
                await self._act_while_leading(stop)
                backoff.reset()
            except Exception as error:
                if not isinstance(error, AWAY):
                    raise
                if trouble_of(error) is Trouble.BUG and not isinstance(error, LogAway):
                    raise
                seconds = backoff.next_seconds()
                metrics.failures.inc()
                self._state = "a server is away"
                log.warning("reconcile.away", error=describe(error), retry_in_seconds=round(seconds, 2))
                await _pause(stop, seconds)

    async def _act_while_leading(self, stop: asyncio.Event) -> None:
        connection = await connect(self._settings.postgres_dsn, application_name="billing-reconciler")
        try:
            while not stop.is_set():
                if await connection.fetchval(query("relay.try_lock"), LOCK_SPACE, Lock.RECONCILER):
                    return await self._act(connection, stop)
                self._state, self._well_at = "standing by", time.monotonic()
                await _pause(stop, 2.0)
        finally:
            with suppress(*AWAY):
                await connection.close(timeout=2)

    async def _act(self, connection: Connection, stop: asyncio.Event) -> None:
        sweep: Sweep | None = None
        identity = None
        while not stop.is_set():
            began = time.monotonic()
            if (now := await read_identity(connection)) != identity or sweep is None:
                if now is None or now.partitions != self._settings.partitions:
                    self._state = "the ledger is not migrated, or has other partitions"
                    await _pause(stop, 5.0)
                    continue
                identity, self._watches = now, {}
                reader = expecting_reader(self._functions, self._settings.topics, identity)
                looker = Looker(reader, self._settings.topics.usage)
                sweep = Sweep(connection, reader, looker, identity.partitions, self._per_second)
            await self._cases.refresh()
            await self._round(connection, reader, looker, sweep)
            self._state, self._well_at = "reconciling", time.monotonic()
            await _pause(stop, max(0.02, TICK_S - (time.monotonic() - began)))

    async def _round(self, connection: Connection, reader: BalanceReader, looker: Looker, sweep: Sweep) -> None:
        for why, accounts in (("hot", await self._hot(connection)), ("again", self._due())):
            for partition, names in accounts.items():
                for first in range(0, len(names), PAGE):
                    page = names[first : first + PAGE]
                    look = await looker.closer(connection, partition, page, time.monotonic() + WAIT_S)
                    await self._take(connection, look, why, partition, closely=True)
        for _ in range(PAGES):
            if (step := await sweep.step()) is None:
                break
            await self._take_step(connection, step)
            if step.ended is not None:
                await self._look_at_holds(connection, reader, looker)
        if time.monotonic() >= self._tail_at:
            await self._look_at_tail(connection)

    # --- which accounts ------------------------------------------------------------------------------------------

    async def _hot(self, connection: Connection) -> Mapping[int, list[str]]:
        """Accounts that were charged or changed since the last round; of the first round none."""
        since = self._newest if self._newest is not None else 2**62
        rows = await connection.fetch(query("reconcile.touched_since"), since, HOT)
        self._newest = rows[0]["newest"]
        return _by_partition((row["account_id"], row["home_partition"]) for row in rows if row["account_id"])

    def _due(self) -> Mapping[int, list[str]]:
        now = time.monotonic()
        return _by_partition((name, watch.partition) for name, watch in self._watches.items() if watch.again_s <= now)

    # --- what to do about them -----------------------------------------------------------------------------------

    async def _take_step(self, connection: Connection, step: SweepStep) -> None:
        if step.ended is None:
            return await self._take(connection, step.look, "sweep", step.partition, closely=step.closely)
        for name, count in step.ended.items():
            metrics.accounts.labels(name).set(count)

    async def _take(self, connection: Connection, look: Look, why: str, partition: int, *, closely: bool) -> None:
        metrics.store_unknown.labels(str(partition)).set(look.unknown is not None)
        metrics.looks.labels(why).inc(len(look.found))
        if look.unknown is not None:  # the whole partition: nothing is said about any account (R1)
            for found in look.found:
                if (watch := self._watches.get(found.account)) is not None:
                    watch.again_s = time.monotonic() + 2.0
            return
        for found in look.found:
            await self._judge(connection, found, closely=closely)
        metrics.watched.set(len(self._watches))

    async def _judge(self, connection: Connection, found: Compared, *, closely: bool) -> None:
        before = self._watches.pop(found.account, None)
        judgement, watch = judge(before, found.partition, found.comparison, time.monotonic(), closely=closely)
        if watch is not None and (before is not None or len(self._watches) < WATCHED):
            self._watches[found.account] = watch
        if judgement is Judgement.AGREES:
            if await self._cases.agrees(found.account):
                metrics.released.inc()
        elif judgement is not Judgement.LOOK_AGAIN:
            await self._act_on(connection, found, judgement)

    async def _act_on(self, connection: Connection, found: Compared, judgement: Judgement) -> None:
        if not self._cases.has(found.account):
            await self._record(connection, found, judgement)
        if judgement is Judgement.UNREADABLE and self._may_repair():
            await self._mend(found)

    async def _mend(self, found: Compared) -> object:
        self._repairs.append(time.monotonic())
        answer = await mend(self._functions, found.partition, found.account)
        log.warning("reconcile.mended", account=found.account, partition=found.partition, answer=str(answer))
        return answer

    async def _record(self, connection: Connection, found: Compared, judgement: Judgement) -> None:
        cause = None
        if judgement is Judgement.DIFFERS:
            cause = await repeated_session(connection, self._log, self._settings.topics.usage, found)
        answer = await record_and_repair(self._pool, found, judgement, cause, may_repair=self._may_repair())
        if not isinstance(answer, Recorded):
            return
        metrics.findings.labels(answer.kind).inc()
        log.error(
            "reconcile.finding", finding=answer.finding, kind=answer.kind, account=found.account, repair=answer.repair
        )
        if answer.repair == "view":
            self._repairs.append(time.monotonic())
            metrics.repairs.inc()
        await self._cases.refresh(now=True)
        if judgement is Judgement.LEDGER_BEHIND:
            self._tail_at = 0.0

    def _may_repair(self) -> bool:
        now = time.monotonic()
        self._repairs = [at for at in self._repairs if now - at < 60.0]
        if len(self._repairs) < REPAIRS_PER_MINUTE:
            return True
        log.error("reconcile.too_many_repairs", most=REPAIRS_PER_MINUTE)
        return False

    async def _look_at_holds(self, connection: Connection, reader: BalanceReader, looker: Looker) -> None:
        """Forget what nobody can read. Named once it was done: until then the books agree, and a finding would end."""
        async for found in damaged_holds(connection, reader, looker, self._settings.partitions):
            if self._may_repair() and await self._mend(found) == "mended":
                await self._record(connection, found, Judgement.UNREADABLE)
                now = time.monotonic()
                self._watches[found.account] = Watch(found.partition, kind_of(found.comparison), now, 0, now)

    async def _look_at_tail(self, connection: Connection) -> None:
        """Has the ledger forgotten what it had published?"""
        self._tail_at = time.monotonic() + TAIL_PAUSE_S
        for partition in range(self._settings.partitions):
            why = await forgotten(connection, self._log, self._settings.topics.entries, partition)
            if why is not None:
                return await suspect(self._pool, why)


def _by_partition(accounts: Iterable[tuple[str, int]]) -> Mapping[int, list[str]]:
    found: dict[int, list[str]] = {}
    for account, partition in accounts:
        found.setdefault(partition, []).append(account)
    return found


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
