"""The relay: publishes the outbox to ledger.entries and the catalogue to billing.tariffs, for as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from billing.ledger import metrics
from billing.ledger.catalogue import HEARTBEAT_S, CataloguePublisher
from billing.ledger.database import Pool
from billing.ledger.measures import Measures, forget_measures
from billing.ledger.outbox import Publisher, publish_entries
from billing.ledger.ownership import OtherPartitions, Ownership
from billing.ledger.trouble import describe
from billing.settings import Settings
from billing.stream.backoff import Backoff

log = structlog.get_logger(__name__)

POLL_S = 1.0  # should a notification be lost
BATCH = 1000
DRAIN_S = 5.0
CATALOGUE = -1  # lanes that are not a partition's; who owns the catalogue measures too
MEASURES = -2


class Relay:
    """Several may run side by side and share the partitions. PostgreSQL or Kafka away: backs off and goes on. `gate` is
    asked before the first entry of a partition that was taken over; it publishes none until that is True (S28)."""

    def __init__(
        self,
        pool: Pool,
        publisher: Publisher,
        settings: Settings,
        *,
        poll_s: float = POLL_S,
        heartbeat_s: float = HEARTBEAT_S,
        gate: Callable[[int], Awaitable[bool]] | None = None,
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._settings = settings
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s
        self._gate = gate
        self._lanes: dict[int, _Lane] = {}

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that this relay publishes now."""
        return frozenset(lane for lane in self._lanes if lane >= 0)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; what is being published then is finished (at most DRAIN_S). Raises OtherPartitions."""
        backoff = Backoff(first_seconds=0.1, limit_seconds=5.0)
        while not stop.is_set():
            try:
                ownership = await Ownership.open(self._settings.postgres_dsn, self._settings.partitions)
            except OtherPartitions:
                raise
            except Exception as error:
                await _fail("own", error, backoff, stop)
                continue
            try:
                await self._own(ownership, stop, backoff)
            except Exception as error:
                await self._stop_lanes(drain_s=0)
                await _fail("own", error, backoff, stop)
            finally:
                # without locks at once, or in order when asked to stop
                await self._stop_lanes(drain_s=0 if ownership.lost.is_set() else DRAIN_S)
                await ownership.close()

    async def _own(self, ownership: Ownership, stop: asyncio.Event, backoff: Backoff) -> None:
        """Share the partitions while the connection lives."""
        while not stop.is_set() and not ownership.lost.is_set():
            for partition in await ownership.rebalance():
                await self._stop_lane(partition, DRAIN_S)
                await ownership.release(partition)
            self._start_lanes(ownership)
            metrics.relay_partitions.set(len(ownership.owned))
            backoff.reset()
            await _first(self._poll_s, stop, ownership.lost, ownership.woken)
            if ownership.woken.is_set():
                ownership.woken.clear()
                for lane in self._lanes.values():
                    lane.woken.set()
        if ownership.lost.is_set():
            log.warning("relay.locks_lost")

    def _start_lanes(self, ownership: Ownership) -> None:
        for partition in ownership.owned - self._lanes.keys():
            self._lanes[partition] = _Lane(f"p{partition}", self._entries_step(partition), self._poll_s)
        if ownership.owns_catalogue and CATALOGUE not in self._lanes:
            topic = self._settings.topics.tariffs
            publisher = CataloguePublisher(self._pool, self._publisher, topic, heartbeat_s=self._heartbeat_s)
            self._lanes[CATALOGUE] = _Lane("catalogue", publisher.step, min(self._poll_s, self._heartbeat_s / 2))
            self._lanes[MEASURES] = _Lane("measures", Measures(self._pool).step, self._poll_s)

    def _entries_step(self, partition: int) -> Callable[[], Awaitable[int]]:
        passed = self._gate is None

        async def step() -> int:
            nonlocal passed
            if not passed and self._gate is not None:
                passed = await self._gate(partition)
            if not passed:
                return 0
            topic = self._settings.topics.entries
            count = await publish_entries(self._pool, self._publisher, topic, partition, BATCH)
            if count:
                metrics.relayed_entries.inc(count)
                if CATALOGUE in self._lanes:  # assignments may have waited for these
                    self._lanes[CATALOGUE].woken.set()
            return count

        return step

    async def _stop_lane(self, lane: int, drain_s: float) -> None:
        found = self._lanes.pop(lane, None)
        if found is not None:
            await found.stop(drain_s)

    async def _stop_lanes(self, *, drain_s: float) -> None:
        lanes, self._lanes = list(self._lanes.values()), {}
        await asyncio.gather(*(lane.stop(drain_s) for lane in lanes))
        forget_measures()


class _Lane:
    """One partition's (or the catalogue's) loop, in a task of its own: one that is stuck keeps no other."""

    def __init__(self, name: str, step: Callable[[], Awaitable[int]], poll_s: float) -> None:
        self.woken = asyncio.Event()
        self._name = name
        self._step = step
        self._poll_s = poll_s
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"relay-{name}")

    async def _run(self) -> None:
        backoff = Backoff(first_seconds=0.1, limit_seconds=5.0)
        while not self._stopping.is_set():
            self.woken.clear()  # before looking: what comes during the step is looked at after it
            try:
                count = await self._step()
            except Exception as error:
                await _fail(self._name, error, backoff, self._stopping)
                continue
            backoff.reset()
            if not count:
                await _first(self._poll_s, self._stopping, self.woken)

    async def stop(self, drain_s: float) -> None:
        """Let the round that is under way end, for at most `drain_s`."""
        self._stopping.set()
        if drain_s:
            await asyncio.wait({self._task}, timeout=drain_s)
        self._task.cancel()
        await asyncio.wait({self._task})


async def _fail(step: str, error: Exception, backoff: Backoff, stop: asyncio.Event) -> None:
    """PostgreSQL or Kafka is away, or refuses: say so, wait, go on. Whatever it is, rows stay until acknowledged."""
    seconds = backoff.next_seconds()
    metrics.relay_failures.labels("own" if step == "own" else "publish").inc()
    log.warning("relay.failed", lane=step, error=describe(error), retry_in_seconds=round(seconds, 2))
    await _first(seconds, stop)


async def _first(timeout_s: float, *events: asyncio.Event) -> None:
    """Until one of the events is set or the time is over."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
