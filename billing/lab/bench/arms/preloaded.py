"""The log, read into memory beforehand, as a membership of a group that nobody else is in."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence

from billing.lab.bench.arms.task import Task
from billing.stream.kafka_reader import LogReader
from billing.stream.log import Fetched, Listener
from billing.stream.record import Record

Records = list[list[Record]]
"""By partition, offsets without holes."""


async def preload(reader: LogReader, topic: str, task: Task) -> Records:
    """Every record of the task, as aiokafka decodes it."""

    async def one(partition: int, begin: int, end: int) -> list[Record]:
        return [record async for record in reader.read(topic, partition, begin, end)]

    spans = enumerate(zip(task.begin, task.end, strict=True))
    records = await asyncio.gather(*(one(partition, *span) for partition, span in spans))
    gc.collect()
    gc.freeze()  # a real consumer has no million records for the collector to look through
    return records


class PreloadedMembership:
    """A billing.stream.log.Membership that answers with slices of lists; nothing of any topic but `topic`."""

    def __init__(self, topic: str, task: Task, records: Records) -> None:
        self._topic = topic
        self._begin = task.begin
        self._records = records
        self._at: dict[tuple[str, int], int] = {}

    async def join(self, listener: Listener) -> None:
        await listener.revoked()
        asyncio.get_running_loop().call_soon(listener.assigned, frozenset(range(len(self._records))))

    async def wait(self, partition: int, topics: Sequence[str], timeout_ms: int) -> None:
        await asyncio.sleep(timeout_ms / 1000)

    async def fetch(self, partition: int, topics: Sequence[str], *, max_records: int) -> Mapping[str, Fetched]:
        return {topic: self._read(topic, partition, max_records) for topic in topics}

    def at_hand(self, topic: str, partition: int) -> bool:
        end = self._begin[partition] + len(self._records[partition])
        return topic == self._topic and self._at[topic, partition] < end

    def take(self, topic: str, partition: int, most: int) -> Fetched | None:
        fetched = self._read(topic, partition, most)
        return fetched if fetched.records else None

    def _read(self, topic: str, partition: int, most: int) -> Fetched:
        at = self._at[topic, partition]
        first = at - self._begin[partition]
        found = self._records[partition][first : first + most] if topic == self._topic else ()
        self._at[topic, partition] = at + len(found)
        return Fetched(at, found, at + len(found))

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self._at[topic, partition] = offset

    def leader(self, topic: str, partition: int) -> object:
        return None  # always the same: a list

    async def commit(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Nobody shows its lag."""

    def check(self) -> None:
        """It cannot die."""

    async def leave(self) -> None:
        """Nobody notices."""
