"""Topics, publisher, reader and follower against a real Kafka."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from billing.lab.waiting import until
from billing.settings import SettingError, Settings
from billing.stream.follower import Follower, LogLost
from billing.stream.kafka_reader import LogReader
from billing.stream.log import Bounds, LogAway, OutOfRange
from billing.stream.publisher import Outgoing, Publisher
from billing.stream.topics import TopicsReady, TopicsRefused, ensure_topics, replication_factor

NOWHERE = "127.0.0.1:1"


async def test_topics_are_created_once_and_fit_afterwards(settings: Settings) -> None:
    names = settings.topics
    assert await ensure_topics(settings) == TopicsReady((names.usage, names.entries, names.tariffs, names.signals))
    assert await ensure_topics(settings) == TopicsReady(())


async def test_s16_existing_topics_that_differ_are_refused_by_name_and_nothing_is_created(settings: Settings) -> None:
    names = settings.topics
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(names.usage, settings.partitions, 1, topic_configs={"message.timestamp.type": "CreateTime"}),
                NewTopic(names.entries, 3, 1, topic_configs={"message.timestamp.type": "LogAppendTime"}),
            ]
        )

        async def listed() -> bool:
            return {names.usage, names.entries} <= set(await admin.list_topics())

        await until(listed, "the topics to be listed", timeout_seconds=10)
        answer = await ensure_topics(settings)
        assert answer == TopicsRefused(
            (
                f"topic {names.usage} has message.timestamp.type=CreateTime, LogAppendTime expected",
                f"topic {names.entries} has 3 partitions, {settings.partitions} expected",
            )
        )
        assert names.signals not in await admin.list_topics()
    finally:
        await admin.close()


def test_the_replication_factor_is_the_brokers_default_unless_set() -> None:
    assert replication_factor({}) == -1
    assert replication_factor({"BILLING_REPLICATION_FACTOR": "3"}) == 3
    with pytest.raises(SettingError, match="BILLING_REPLICATION_FACTOR"):
        replication_factor({"BILLING_REPLICATION_FACTOR": "three"})


async def test_records_keep_their_order_and_can_be_read_by_offset_range_and_time(settings: Settings) -> None:
    await ensure_topics(settings)
    topic = settings.topics.usage
    async with Publisher(settings.kafka_bootstrap, max_in_flight=100) as publisher, _reader(settings) as reader:
        delivered = await publisher.publish(Outgoing(topic, b"%d" % n, b"same key") for n in range(1000))
        partition = delivered[0].partition
        assert [(d.partition, d.offset) for d in delivered] == [(partition, n) for n in range(1000)]
        assert await reader.bounds(topic, partition) == Bounds(0, 1000)
        assert [r.value async for r in reader.read(topic, partition, 10, 900)] == [b"%d" % n for n in range(10, 900)]
        middle = await reader.record_at(topic, partition, 500)
        assert middle is not None
        found = await reader.offset_for_time(topic, partition, middle.timestamp)
        assert found <= 500
        assert await reader.offset_for_time(topic, partition, middle.timestamp + 3_600_000) == 1000
        assert await reader.record_at(topic, partition, 1000) is None
        assert await reader.partition_count(topic) == settings.partitions
        assert await reader.partition_count("no-such-topic") is None
        with pytest.raises(OutOfRange):
            [r async for r in reader.read(topic, partition, 2000, 3000)]


async def test_what_was_aborted_is_no_record_and_the_end_is_the_last_stable_offset(settings: Settings) -> None:
    await ensure_topics(settings)
    topic = settings.topics.usage
    async with transactional(settings) as producer, _reader(settings) as reader:
        await one_transaction(producer, topic, [b"a", b"b"], commit=True)
        await one_transaction(producer, topic, [b"x", b"y"], commit=False)
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"open", partition=0)
        assert await reader.bounds(topic, 0) == Bounds(0, 6)
        assert [r.offset async for r in reader.read(topic, 0, 0, 6)] == [0, 1]
        assert await reader.record_at(topic, 0, 3) is None
        await producer.commit_transaction()  # the broker answers before it has written the marker

        async def decided() -> bool:
            return await reader.bounds(topic, 0) == Bounds(0, 8)

        await until(decided, "the marker", timeout_seconds=20)
        assert [r.offset async for r in reader.read(topic, 0, 0, 8)] == [0, 1, 6]


async def test_a_follower_reads_from_the_beginning_catches_up_and_keeps_following(settings: Settings) -> None:
    await ensure_topics(settings)
    topic = settings.topics.tariffs
    seen: list[bytes | None] = []
    async with Publisher(settings.kafka_bootstrap) as publisher, _reader(settings) as reader:
        big = b"t" * (5 << 20)  # larger than the consumer's fetch limit of 1 MiB
        await publisher.publish([Outgoing(topic, b"1", b"k1"), Outgoing(topic, big, b"k2")])
        follower = Follower(reader, topic, lambda records: seen.extend(r.value for r in records))
        task = asyncio.create_task(follower.run())
        try:
            async with asyncio.timeout(10):
                await follower.catch_up()
                assert seen == [b"1", big]
                for n in range(3):
                    await publisher.publish([Outgoing(topic, b"%d" % n, b"k")])
                    await follower.catch_up()
                    assert seen[-1] == b"%d" % n
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize("records", [0, 1, 3])
async def test_s15_a_follower_of_a_recreated_topic_does_not_go_on(settings: Settings, records: int) -> None:
    """Shorter than what was read, as long, or longer: what was built from the old topic is not to be trusted."""
    await ensure_topics(settings)
    topic = settings.topics.tariffs
    async with _reader(settings) as reader:
        async with Publisher(settings.kafka_bootstrap) as publisher:
            await publisher.publish([Outgoing(topic, b"old", b"k")])
        follower = Follower(reader, topic, lambda records: None)
        task = asyncio.create_task(follower.run())
        await follower.catch_up()
        task.cancel()
        await asyncio.wait([task])
        await _recreate(settings, topic)
        async with Publisher(settings.kafka_bootstrap) as publisher:
            await publisher.publish([Outgoing(topic, b"new", b"k")] * records)
        with pytest.raises(LogLost):
            async with asyncio.timeout(20):
                await follower.run()


async def _recreate(settings: Settings, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        async with asyncio.timeout(10):
            while topic in await admin.list_topics():  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
    finally:
        await admin.close()
    await ensure_topics(settings)


async def test_kafka_away_is_said_within_the_deadline() -> None:
    away = Settings(NOWHERE, "redis://nowhere", "postgresql://nowhere")
    with pytest.raises(LogAway):
        await ensure_topics(away)
    async with LogReader(NOWHERE, deadline_seconds=0.5) as reader:
        with pytest.raises(LogAway):
            await reader.bounds("usage", 0)
        with pytest.raises(LogAway):
            await reader.partition_count("usage")
    async with Publisher(NOWHERE, deadline_seconds=0.5) as publisher:
        with pytest.raises(LogAway):
            await publisher.publish([Outgoing("usage", b"")])


async def test_a_record_larger_than_any_request_is_refused_not_retried(settings: Settings) -> None:
    await ensure_topics(settings)
    async with Publisher(settings.kafka_bootstrap) as publisher:
        with pytest.raises(ValueError, match="bytes"):
            await publisher.publish([Outgoing(settings.topics.usage, b"x" * (17 << 20))])


def _reader(settings: Settings) -> LogReader:
    return LogReader(settings.kafka_bootstrap)


def transactional(settings: Settings) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id=f"{settings.namespace}.foreign"
    )


async def one_transaction(producer: AIOKafkaProducer, topic: str, values: list[bytes], *, commit: bool) -> None:
    await producer.begin_transaction()
    for value in values:
        await producer.send_and_wait(topic, value, partition=0)
    await (producer.commit_transaction() if commit else producer.abort_transaction())
