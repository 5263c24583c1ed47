"""The catalogue as admission has it: followed like a consumer's, but trouble with it never ends the process, which
goes on answering without prices (`catalogue_stale`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from billing.admission import metrics
from billing.rating.catalogue import Catalogue
from billing.stream.backoff import Backoff
from billing.stream.catalogue import CatalogueConflict, LiveCatalogue
from billing.stream.follower import LogLost
from billing.stream.kafka_reader import LogReader
from schemas.common import MalformedMessage

log = structlog.get_logger(__name__)

TROUBLE = (CatalogueConflict, LogLost, MalformedMessage)


class KeptCatalogue:
    """`current` is the catalogue while it may be priced from: read to its end and in agreement with itself. After
    trouble it is read anew, with back-off. `on_read` is called each time that it has been read to its end."""

    def __init__(self, reader: LogReader, topic: str, *, on_read: Callable[[], None] = lambda: None) -> None:
        self._reader = reader
        self._topic = topic
        self._on_read = on_read
        self.current: Catalogue | None = None
        self.trouble = "not read yet"

    async def run(self) -> None:
        """Until cancelled. Kafka being away is waited for: the catalogue stays, up to its horizon."""
        backoff = Backoff(first_seconds=1.0, limit_seconds=30.0)
        while True:
            live = LiveCatalogue(self._reader, self._topic)
            try:
                async with live.following() as following:
                    await live.ready(following)
                    self._on_read()
                    self.current, self.trouble = live.catalogue, ""
                    backoff.reset()
                    await following
            except TROUBLE as error:
                self.current, self.trouble = None, f"{type(error).__name__}: {error}"
                metrics.CATALOGUE_RESTARTS.inc()
                log.error("catalogue.trouble", reason=self.trouble)  # noqa: TRY400 - the reason says it all
            await asyncio.sleep(backoff.next_seconds())
