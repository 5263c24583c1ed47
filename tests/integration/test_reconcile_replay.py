"""What a rebuild reads from a real log."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer

from billing.reconcile.replay import end_position
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.record import Position, fingerprint
from billing.stream.topics import ensure_topics
from billing.stream.verify import Matches, check_position


@pytest.fixture
async def reader(settings: Settings) -> AsyncIterator[LogReader]:
    await ensure_topics(settings)
    async with LogReader(settings.kafka_bootstrap) as reader:
        yield reader


async def test_the_end_of_an_empty_log(settings: Settings, reader: LogReader) -> None:
    assert await end_position(reader, settings.topics.entries, 0) == Position(0, "")


@pytest.mark.parametrize("aborted", [0, 5, 200])
async def test_the_end_of_a_log_names_the_last_record_that_can_be_read(
    settings: Settings, reader: LogReader, aborted: int
) -> None:
    """However many offsets of aborted transactions and their markers are between it and the end."""
    topic = settings.topics.entries
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, transactional_id=settings.namespace)
    async with producer:
        async with producer.transaction():
            for n in range(3):
                await producer.send_and_wait(topic, b"%d" % n, partition=1)
        await producer.begin_transaction()
        for _ in range(aborted):
            await producer.send(topic, b"never", partition=1)
        await producer.abort_transaction()
    end = (await reader.ends([(topic, 1)]))[topic, 1]
    last = await reader.record_at(topic, 1, 2)
    assert last is not None
    position = await end_position(reader, topic, 1)
    assert position == Position(end, fingerprint(last))
    assert end >= 4 + aborted
    assert isinstance(await check_position(reader, topic, 1, position), Matches)
