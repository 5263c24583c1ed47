"""Reads a whole partition from its beginning, outside any group, and keeps following it: the catalogue's source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

import structlog

from billing.stream.backoff import Backoff
from billing.stream.kafka_reader import LogReader
from billing.stream.log import Fetched, LogAway, OutOfRange
from billing.stream.record import Record, fingerprint

log = structlog.get_logger(__name__)

VERIFY_SECONDS = 30.0


class LogLost(Exception):
    """The followed log is another one, or lost records that were read: what was built from it is not to be trusted.
    The process ends and reads it from the beginning when it is started again."""


class Follower:
    """`on_records` is called with consecutive records, in order, each once; an exception from it ends `run`."""

    def __init__(
        self, reader: LogReader, topic: str, on_records: Callable[[Sequence[Record]], None], *, partition: int = 0
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._partition = partition
        self._on_records = on_records
        self._last = ""  # fingerprint of the last record read
        self._moved = asyncio.Event()
        self.position: int | None = None  # next offset to read; None before the log was reached

    async def run(self) -> None:
        """Until cancelled. Kafka being away is waited for. Raises LogLost, and whatever `on_records` raises."""
        backoff = Backoff(first_seconds=0.2)
        while True:
            try:
                if self.position is None:
                    self.position = (await self._reader.bounds(self._topic, self._partition)).start
                await self._verify()
                async with aclosing(self._reader.follow(self._topic, self._partition, self.position)) as fetches:
                    verified_at = asyncio.get_running_loop().time()
                    async for fetched in fetches:
                        self._take(fetched)
                        backoff.reset()
                        if asyncio.get_running_loop().time() - verified_at > VERIFY_SECONDS:
                            await self._verify()
                            verified_at = asyncio.get_running_loop().time()
            except OutOfRange as error:
                raise LogLost(f"{self._topic}-{self._partition}: {error}") from error
            except LogAway as error:
                if backoff.attempt == 0:
                    log.warning("follower.away", topic=self._topic, error=str(error))
                await asyncio.sleep(backoff.next_seconds())

    async def catch_up(self) -> None:
        """Until everything that is in the log at the time of the call was given to `on_records`. Raises LogAway when
        the end cannot be asked; the wait itself is bounded by the caller."""
        end = (await self._reader.ends([(self._topic, self._partition)]))[self._topic, self._partition]
        while self.position is None or self.position < end:
            await self._moved.wait()

    def _take(self, fetched: Fetched) -> None:
        if fetched.records:
            self._on_records(fetched.records)
            self._last = fingerprint(fetched.records[-1])
        self.position = fetched.next_offset
        self._moved.set()
        self._moved = asyncio.Event()

    async def _verify(self) -> None:
        """The last record read is still there, or gone by compaction, but not another one."""
        if not self._last:
            return
        offset = int(self._last.split(":", 1)[0])
        record = await self._reader.record_at(self._topic, self._partition, offset)
        if record is not None and fingerprint(record) != self._last:
            raise LogLost(f"{self._topic}-{self._partition}: record {offset} is another one now")
