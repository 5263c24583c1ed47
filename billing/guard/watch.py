"""The guard of one node: a look with a deadline, and a watcher that keeps the newest verdict for those who move money.

A consumer opens it once, and asks for `verdict()` at check 1 and again just before money moves:

    async with guarding(settings) as watcher:
        ...
        verdict = watcher.verdict()
        if not verdict.healthy:  # refuse, and store verdict.reason and verdict.seen with the refusal
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import asyncpg
import structlog
from redis.asyncio import Redis

from billing.balance.balances import PartitionView, Unknown
from billing.balance.calls import Functions
from billing.balance.errors import CALL_ERRORS
from billing.balance.keys import KeySpace
from billing.guard import metrics
from billing.guard.chain_look import ChainLook
from billing.guard.expected import Expected
from billing.guard.look import LANES, look, read_partitions, why
from billing.guard.memory import Memory
from billing.guard.observation import Observation
from billing.guard.places import Place, Target, lost_partitions
from billing.guard.rules import wants_failover
from billing.guard.verdict import GuardVerdict, judge_all, stale
from billing.ledger.database import lease, open_pool
from billing.ledger.incarnations import Identity, read_identity
from billing.settings import Settings, Topics

INTERVAL_S = 1.0
LOOK_DEADLINE_S = 1.0
LEDGER_DEADLINE_S = 0.5
MAX_AGE_S = 5.0

log = structlog.get_logger(__name__)


class Guard:
    """Looks at a store, each time through a new client of `target`, so that every look finds the servers anew, as a new
    client of the store would (S49). `identity` answers what the ledger expects of the store (`read_identity`)."""

    def __init__(
        self,
        target: Target,
        keys: KeySpace,
        topics: Topics,
        identity: Callable[[], Awaitable[Identity | None]],
        *,
        expected: Expected | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._keys = keys
        self._topics = topics
        self._identity = identity
        self._expected = expected or Expected()
        self.clock = clock
        self._memories: dict[str, Memory] = {}

    async def look(self) -> GuardVerdict:
        """Look now, for at most LOOK_DEADLINE_S and CHAIN_S. Never raises for a server that is away. Not for two at
        once."""
        at_s, before = self.clock(), self._memories
        with metrics.LOOK_SECONDS.time():
            seen = await self._observe()
        verdict, self._memories = judge_all(seen, self._expected, before, at_s=at_s)
        for place, memory in self._memories.items():
            if place in before and before[place].run_id not in ("", memory.run_id):
                metrics.RUN_ID_CHANGES.inc()
        return verdict

    async def _observe(self) -> list[Observation]:
        """Each primary and what is around it."""
        client = self._target.open()
        try:
            expected = await self._ledger()
            deadline_s = asyncio.get_running_loop().time() + LOOK_DEADLINE_S
            try:
                async with asyncio.timeout_at(deadline_s):
                    places = await self._target.places(client, self._keys)
                    lost = await lost_partitions(client, self._keys)
            except CALL_ERRORS as error:
                return [self._away(why(error), expected)]
            looks = (self._one(place, expected, deadline_s) for place in places)
            seen = await asyncio.gather(*looks)
            views = {partition: Unknown("unavailable", "no node has its slot") for partition in lost}
            return [*seen, self._away("", expected, views)] if views or not seen else seen
        finally:
            await client.aclose()

    async def _one(self, place: Place, expected: Identity | str, deadline_s: float) -> Observation:
        try:
            async with asyncio.timeout_at(deadline_s):
                seen = await look(
                    place.node, self._keys, self._topics, expected, place=place.name, partitions=place.partitions
                )
        except TimeoutError:
            seen = replace(self._away(f"no answer within {LOOK_DEADLINE_S:g} s", expected), place=place.name)
        memory = self._memories.get(place.name, Memory())
        read = None
        if isinstance(expected, Identity) and wants_failover(seen, self._expected, memory):

            async def read(node: Redis) -> Mapping[int, PartitionView | Unknown]:
                return await read_partitions(Functions(node, self._keys), self._topics, expected, place.partitions)

        chain = ChainLook(self._target.at, read)
        return replace(seen, around=await chain.run(seen.info, {*place.others, *memory.replicas}))

    def _away(
        self, away: str, expected: Identity | str, partitions: Mapping[int, Unknown] | None = None
    ) -> Observation:
        known = expected if isinstance(expected, Identity) else None
        return Observation(
            away=away,
            ledger="" if known else str(expected),
            timeline=known.timeline if known else "",
            incarnation=known.incarnation if known else None,
            partitions=partitions or {},
        )

    async def _ledger(self) -> Identity | str:
        try:
            async with asyncio.timeout(LEDGER_DEADLINE_S):
                found = await self._identity()
        except asyncpg.UndefinedTableError:
            found = None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            return f"no answer from the ledger: {type(error).__name__}"
        return found or "the ledger is not migrated"


class Watcher:
    """Looks every `interval_s`, and keeps the newest verdict."""

    def __init__(self, guard: Guard, *, interval_s: float = INTERVAL_S, max_age_s: float = MAX_AGE_S) -> None:
        self._guard = guard
        self._interval_s = interval_s
        self._max_age_s = max_age_s
        self._newest: GuardVerdict | None = None

    def verdict(self) -> GuardVerdict:
        """The newest verdict; unhealthy, `stale`, where it began longer ago than `max_age_s` or there is none."""
        now_s, newest = self._guard.clock(), self._newest
        if newest is None:
            return stale(None, "no look yet", at_s=now_s)
        age_s = now_s - newest.at_s
        if age_s > self._max_age_s:
            return stale(newest, f"the newest look is {age_s:.1f} s old", at_s=now_s)
        return newest

    async def look(self) -> GuardVerdict:
        """Look now, and keep what was found."""
        before, verdict = self._newest, await self._guard.look()
        self._newest = verdict
        metrics.show(verdict)
        metrics.LOOKED_AT.set_to_current_time()
        _log_change(before, verdict)
        return verdict

    async def run(self) -> None:
        """Look for ever, beginning now. An error that is nobody's answer ends it; the verdict then turns stale."""
        while True:
            next_s = self._guard.clock() + self._interval_s
            await self.look()
            await asyncio.sleep(max(0.0, next_s - self._guard.clock()))


@asynccontextmanager
async def guard_of(settings: Settings, expected: Expected | None = None) -> AsyncIterator[Guard]:
    """A guard of the settings' balance store, with a connection to the ledger of its own."""
    pool = await open_pool(settings.postgres_dsn, max_size=1, application_name="billing-guard")

    async def identity() -> Identity | None:
        async with lease(pool) as connection:
            return await read_identity(connection)

    target = Target(settings.redis_url, timeout_s=LOOK_DEADLINE_S, max_connections=LANES + 1)
    keys = settings.key_space
    try:
        yield Guard(target, keys, settings.topics, identity, expected=expected or Expected.from_env())
    finally:
        await asyncio.wait_for(pool.close(), timeout=5)


@asynccontextmanager
async def guarding(settings: Settings, expected: Expected | None = None) -> AsyncIterator[Watcher]:
    """A watcher at work, its first look done. Should it end by an error, that is raised at the end of the block and
    its verdict is `stale` until then."""
    async with guard_of(settings, expected) as guard:
        watcher = Watcher(guard)
        await watcher.look()
        task = asyncio.create_task(watcher.run(), name="guard")
        task.add_done_callback(_log_end)
        try:
            yield watcher
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("guard.ended", exc_info=task.exception())


def _log_change(before: GuardVerdict | None, now: GuardVerdict) -> None:
    """One line when the set of findings changes."""
    if before is not None and [f.finding for f in before.findings] == [f.finding for f in now.findings]:
        return
    details = "; ".join(str(found) for found in now.findings)
    if not now.healthy:
        log.error("guard.unhealthy", reason=",".join(now.reasons), detail=details)
    elif now.warnings:
        log.warning("guard.warns", reason=",".join(now.warnings), detail=details)
    else:
        log.info("guard.healthy", detail=details)
