"""What a membership has at hand of a real Kafka: taken without waiting, in pieces that join on to what was fetched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from billing.settings import Settings
from billing.stream.kafka import KafkaMembership, kafka_group
from billing.stream.log import Fetched
from billing.stream.publisher import Outgoing, Publisher
from billing.stream.topics import ensure_topics

COUNT = 250


class Assigned:
    """A Listener that remembers."""

    def __init__(self) -> None:
        self.changes = 0
        self.given: AbstractSet[int] = frozenset()
        self.something = asyncio.Event()

    async def revoked(self) -> None:
        self.given = frozenset()

    def assigned(self, partitions: AbstractSet[int], torn: AbstractSet[int] = frozenset()) -> None:
        self.given = partitions
        self.changes += 1
        self.something.set()


@pytest.fixture
async def topic(settings: Settings) -> str:
    await ensure_topics(replace(settings, partitions=2))
    async with Publisher(settings.kafka_bootstrap) as publisher:
        topic = settings.topics.usage
        await publisher.publish([Outgoing(topic, b"%d" % n, partition=0) for n in range(COUNT)])
    return topic


@asynccontextmanager
async def member(settings: Settings, listener: Assigned) -> AsyncIterator[KafkaMembership]:
    membership = kafka_group(settings.kafka_bootstrap, settings.group("take"), [settings.topics.usage])()
    await membership.join(listener)
    try:
        yield membership
    finally:
        await membership.leave()


def offsets(fetched: Fetched | None) -> list[int]:
    assert fetched is not None
    found = [record.offset for record in fetched.records]
    assert found == list(range(fetched.from_offset, fetched.next_offset))
    return found


async def first_of(membership: KafkaMembership, topic: str, most: int) -> Fetched:
    while True:
        await membership.wait(0, [topic], 200)
        fetched = (await membership.fetch(0, [topic], max_records=most))[topic]
        if fetched.records:
            return fetched


async def test_pieces_join_on_to_what_was_fetched_until_nothing_is_left(settings: Settings, topic: str) -> None:
    listener = Assigned()
    async with asyncio.timeout(60), member(settings, listener) as membership:
        await listener.something.wait()
        membership.seek(topic, 0, 0)
        assert membership.take(topic, 0, 10) is None  # nothing was fetched yet
        assert offsets(await first_of(membership, topic, 10)) == list(range(10))
        assert offsets(membership.take(topic, 0, 100)) == list(range(10, 110))
        assert offsets(membership.take(topic, 0, 100)) == list(range(110, 210))
        assert offsets(membership.take(topic, 0, 100)) == list(range(210, COUNT))
        assert membership.take(topic, 0, 100) is None

        membership.seek(topic, 0, 5)
        assert membership.take(topic, 0, 10) is None
        assert offsets(await first_of(membership, topic, 10)) == list(range(5, 15))
        assert offsets(membership.take(topic, 0, 3)) == [15, 16, 17]


async def test_who_waits_is_woken_by_its_own_partition_and_by_the_time(settings: Settings, topic: str) -> None:
    listener = Assigned()
    async with asyncio.timeout(60), member(settings, listener) as membership:
        await listener.something.wait()
        membership.seek(topic, 1, 0)
        other = asyncio.create_task(membership.wait(1, [topic], 3_600_000))  # nothing is there
        membership.seek(topic, 0, 0)
        await membership.wait(0, [topic], 3_600_000)
        assert membership.take(topic, 0, COUNT)
        await membership.wait(0, [topic], 10)
        assert membership.take(topic, 0, 1) is None
        async with Publisher(settings.kafka_bootstrap) as publisher:
            await publisher.publish([Outgoing(topic, b"more", partition=0)])
            await membership.wait(0, [topic], 3_600_000)
            assert membership.take(topic, 0, 1)
            assert not other.done()
            await publisher.publish([Outgoing(topic, b"at last", partition=1)])
        await other
        assert membership.take(topic, 1, 1)


async def test_s02_nothing_is_taken_of_what_was_fetched_before_a_rebalance(settings: Settings, topic: str) -> None:
    listener, other = Assigned(), Assigned()
    async with asyncio.timeout(60), member(settings, listener) as membership:
        await listener.something.wait()
        membership.seek(topic, 0, 0)
        assert offsets(await first_of(membership, topic, 10)) == list(range(10))
        async with member(settings, other):
            while not (listener.changes > 1 and other.changes):
                membership.take(topic, 0, 1)
                await asyncio.sleep(0.01)
            assert sorted(map(len, (listener.given, other.given))) == [1, 1]
            assert membership.take(topic, 0, 10) is None  # and whoever got it has yet to say from where
