"""Reads the ends of the usage and entries logs about once a second, so that answers can say how far behind they are."""

from __future__ import annotations

import asyncio
import time

import structlog

from billing.admission.lag import LogEnds, Pair
from billing.settings import Topics
from billing.stream.backoff import Backoff
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
ASKED_AT_ONCE = 64
STEPS = 4  # into which the time before the start is divided


class LogEndsReader:
    """Keeps `ends` current. While Kafka is away they grow old, and with them every balance."""

    def __init__(self, reader: LogReader, topics: Topics, partitions: int, ends: LogEnds) -> None:
        self._reader = reader
        self._pairs: list[Pair] = [(t, p) for t in (topics.usage, topics.entries) for p in range(partitions)]
        self._ends = ends

    async def run(self) -> None:
        """Until cancelled."""
        away, known, backoff = False, False, Backoff(first_seconds=0.2, limit_seconds=2.0)
        while True:
            try:
                if not known:
                    await self._look_back()
                    known = True
                self._ends.saw(await self._reader.ends(self._pairs))
            except LogAway as error:
                if not away:
                    log.warning("kafka.away", error=str(error))
                away = True
                await asyncio.sleep(backoff.next_seconds())
            else:
                if away:
                    log.info("kafka.back")
                away = False
                backoff.reset()
                await asyncio.sleep(INTERVAL_S)

    async def _look_back(self) -> None:
        """Where the logs ended before this process began, by their own times: else a partition that has long been
        behind would seem to be so since the start."""
        began_s, now_ms, found = time.monotonic(), time.time_ns() // 1_000_000, {}
        for ago_ms in (self._ends.limit_ms * step // STEPS for step in range(STEPS, 0, -1)):
            found[ago_ms] = await self._ends_at(now_ms - ago_ms)
        took_s = time.monotonic() - began_s
        for ago_ms, ends in found.items():
            self._ends.saw(ends, ago_s=ago_ms / 1000 + took_s)

    async def _ends_at(self, time_ms: int) -> dict[Pair, int]:
        """Some partitions after the other: each question has its own deadline, and one broker may have them all."""
        found: dict[Pair, int] = {}
        for first in range(0, len(self._pairs), ASKED_AT_ONCE):
            pairs = self._pairs[first : first + ASKED_AT_ONCE]
            asked = (self._reader.offset_for_time(*pair, time_ms) for pair in pairs)
            found.update(zip(pairs, await asyncio.gather(*asked), strict=True))
        return found
