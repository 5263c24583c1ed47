"""The ends of the owned logs, read together about once a second: lag, "at the end", and a client that is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Generic

import structlog

from billing.stream import metrics
from billing.stream.log import LogAway
from billing.stream.plan import Plan
from billing.stream.sink import Op

log = structlog.get_logger(__name__)

Pair = tuple[str, int]


class Ends(Generic[Op]):
    """Last stable offsets of the owned (topic, partition)s and when they were asked for."""

    def __init__(self, plan: Plan[Op]) -> None:
        self._plan = plan
        self._owned: frozenset[Pair] = frozenset()
        self._ends: dict[Pair, int] = {}
        self._asked_at = 0.0
        self._behind_since: dict[Pair, tuple[int, float]] = {}  # position that has not moved, and since when
        self.away = False

    def own(self, pairs: Collection[Pair]) -> None:
        """What to read from now on; what is known of other pairs is forgotten."""
        for topic, partition in self._owned.difference(pairs):
            metrics.LAG.remove(self._plan.group, topic, str(partition))
        for topic, partition in pairs:
            metrics.LAG.labels(self._plan.group, topic, str(partition))
        self._owned = frozenset(pairs)
        self._ends = {}
        self._behind_since = {}

    async def refresh(self) -> None:
        """Read the ends. Kafka being away is said once and makes every end stale."""
        asked_at = self._plan.clock.monotonic()
        owned = self._owned
        if not owned:
            return
        try:
            async with asyncio.timeout(self._plan.timings.horizon_deadline_seconds):
                ends = await self._plan.reader.ends(owned)
        except (LogAway, TimeoutError) as error:
            if not self.away:
                log.warning("kafka.away", group=self._plan.group, error=str(error))
            self.away = True
            return
        if self.away:
            log.info("kafka.back", group=self._plan.group)
        self.away = False
        if owned == self._owned:
            self._ends, self._asked_at = dict(ends), asked_at

    def fresh(self, topic: str, partition: int) -> int | None:
        """The end, unless it was read too long ago to say that one is at it."""
        if self._plan.clock.monotonic() - self._asked_at > self._plan.timings.ends_fresh_seconds:
            return None
        return self._ends.get((topic, partition))

    def lag(self, topic: str, partition: int, position: int) -> int | None:
        """Records (and holes) between a position and the end as last read."""
        end = self._ends.get((topic, partition))
        return None if end is None else max(0, end - position)

    def observe(self, positions: Mapping[Pair, int]) -> Pair | None:
        """Set the lag metric; answers a pair whose lane waits for records that exist but have not come for long.

        `positions` are those of lanes that wait for records; a fetcher that died silently looks like this.
        """
        now = self._plan.clock.monotonic()
        stuck = None
        behind: dict[Pair, tuple[int, float]] = {}
        for pair, position in positions.items():
            lag = self.lag(*pair, position)
            if lag is None or self.away:
                continue
            metrics.LAG.labels(self._plan.group, pair[0], str(pair[1])).set(lag)
            if lag == 0:
                continue
            before = self._behind_since.get(pair)
            behind[pair] = before if before is not None and before[0] == position else (position, now)
            if now - behind[pair][1] > self._plan.timings.stalled_seconds:
                stuck = pair
        self._behind_since = behind
        return stuck
