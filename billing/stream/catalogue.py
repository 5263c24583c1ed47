"""The catalogue as a consumer process has it: an in-memory view of `billing.tariffs`, followed from its beginning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from billing.rating.catalogue import Catalogue
from billing.stream.backoff import Backoff
from billing.stream.follower import Follower
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway
from billing.stream.record import Record

log = structlog.get_logger(__name__)


class CatalogueConflict(Exception):
    """The topic's records do not fit together (another timeline, a version with two contents): nothing may be priced
    until a person has looked."""


class LiveCatalogue:
    """`catalogue` grows while `following` runs; waits below end when it has grown far enough."""

    def __init__(self, reader: LogReader, topic: str) -> None:
        self.catalogue = Catalogue()
        self._follower = Follower(reader, topic, self._take)
        self._grown = asyncio.Event()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[asyncio.Task[None]]:
        """Follow in the background; the task ends only with an exception, which is the process's to report."""
        task = asyncio.create_task(self._follower.run(), name="catalogue")
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def read_to_end(self) -> None:
        """Until everything that is in the topic now was taken in. Waits while Kafka is away."""
        backoff = Backoff(first_seconds=0.2)
        while True:
            try:
                await self._follower.catch_up()
            except LogAway as error:
                log.warning("catalogue.away", error=str(error))
                await asyncio.sleep(backoff.next_seconds())
            else:
                log.info("catalogue.read", count=len(self.catalogue), horizon_ms=self.catalogue.horizon_ms)
                return

    async def ready(self, following: asyncio.Task[None]) -> bool:
        """True once the topic was read to its end; raises what ended `following`, should that come first."""
        reading = asyncio.create_task(self.read_to_end())
        try:
            await asyncio.wait({reading, following}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            await reading
        finally:
            reading.cancel()
        return True

    async def catch_up(self, _topic: str) -> None:
        """For the runner: until the topic's present end was taken in. Raises LogAway."""
        await self._follower.catch_up()

    async def await_horizon(self, horizon_ms: int) -> None:
        """For the runner: until the catalogue is known to be complete up to `horizon_ms`."""
        while (self.catalogue.horizon_ms or 0) < horizon_ms:
            self._grown.clear()
            await self._grown.wait()

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            self.catalogue.apply(record.value)
        if self.catalogue.conflict is not None:
            raise CatalogueConflict(self.catalogue.conflict)
        self._grown.set()
