"""The runner over a real Kafka: rebalances, transactions, stopped processes, a broker that goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from stream_member import serve

from billing.devstack.kafka import KafkaServer
from billing.settings import Settings
from billing.stream.finished import Drained, Finished
from billing.stream.kafka import kafka_group
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway
from billing.stream.memory_sink import Effect, Everything, MemorySink
from billing.stream.plan import Plan, Timings
from billing.stream.publisher import Outgoing, Publisher
from billing.stream.runner import Runner
from billing.stream.topics import ensure_topics

PARTITIONS = 4
QUICK = Timings(idle_wait_seconds=0.1, tend_seconds=0.1, ends_seconds=0.2, commit_seconds=0.5, verify_seconds=1.0)
MEMBER = Path(__file__).with_name("stream_member.py")


@pytest.fixture
async def small(settings: Settings) -> Settings:
    fewer = replace(settings, partitions=PARTITIONS)
    await ensure_topics(fewer)
    return fewer


class Cluster:
    """Both topics of a namespace, one sink, and how to compare them."""

    def __init__(self, settings: Settings, publisher: Publisher, reader: LogReader) -> None:
        self.settings = settings
        self.topics = (settings.topics.entries, settings.topics.usage)
        self.sink = MemorySink(self.topics)
        self.publisher = publisher
        self.reader = reader
        self.published = 0

    def runner(self) -> Runner[Effect]:
        group = self.settings.group("bench")
        plan = Plan(
            group=group,
            topics=self.topics,
            partitions=PARTITIONS,
            sink=self.sink,
            interpreters={topic: Everything() for topic in self.topics},
            max_records=dict.fromkeys(self.topics, 250),
            reader=self.reader,
            timings=QUICK,
        )
        return Runner(plan, kafka_group(self.settings.kafka_bootstrap, group, self.topics))

    async def publish(self, count: int) -> None:
        records = [
            Outgoing(topic, b"%d" % n, partition=n % PARTITIONS)
            for n in range(self.published, self.published + count)
            for topic in self.topics
        ]
        self.published += count
        await self.publisher.publish(records)

    async def settled(self, *, seconds: float = 30.0) -> None:
        """Every record of every partition was applied once, in its topic's order, and the positions are at the ends."""
        pairs = [(topic, partition) for topic in self.topics for partition in range(PARTITIONS)]
        ends = await self.reader.ends(pairs)  # markers of a transaction just decided may still move them
        await until(lambda: all(self.sink.position(*pair).offset >= end for pair, end in ends.items()), seconds)
        for topic, partition in pairs:
            to = self.sink.position(topic, partition).offset
            records = self.reader.read(topic, partition, 0, to)
            expected = [Effect(topic, partition, record.offset, record.value or b"") async for record in records]
            applied = [effect for effect in self.sink.effects(partition) if effect.topic == topic]
            assert applied[: len(expected)] == expected
            assert not applied[len(expected) :] or applied[len(expected)].offset >= to  # came since


@asynccontextmanager
async def cluster_of(settings: Settings) -> AsyncIterator[Cluster]:
    bootstrap = settings.kafka_bootstrap
    async with Publisher(bootstrap) as publisher, LogReader(bootstrap, deadline_seconds=3.0) as reader:
        yield Cluster(settings, publisher, reader)


@asynccontextmanager
async def running(runner: Runner[Effect]) -> AsyncIterator[asyncio.Task[Finished]]:
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        await runner.drain()
        assert await task == Drained()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions are of many kinds, none has an event
            await asyncio.sleep(0.01)


def shares(*runners: Runner[Effect]) -> list[int]:
    """How many lanes each runner has running; -1 while a partition is in two hands or in none."""
    owned = [
        [lane["partition"] for lane in runner.snapshot()["lanes"] if lane["state"] == "running"] for runner in runners
    ]
    whole = len({n for lanes in owned for n in lanes}) == sum(map(len, owned))
    return [len(lanes) if whole else -1 for lanes in owned]


async def test_rebalances_with_two_and_three_members_apply_every_record_once(small: Settings) -> None:
    async with cluster_of(small) as cluster:
        first, second, third = cluster.runner(), cluster.runner(), cluster.runner()
        async with running(first):
            async with flowing(cluster):
                await until(lambda: shares(first) == [4])
                async with running(second):
                    await until(lambda: shares(first, second) == [2, 2])
                    async with running(third):
                        await until(lambda: sorted(shares(first, second, third)) == [1, 1, 2])
                    await until(lambda: shares(first, second) == [2, 2])
                await until(lambda: shares(first) == [4])
            await cluster.settled()
            assert first.snapshot()["healthy"]
            # the ends of the logs are read now and then, so the lag that is shown may be a moment old
            await until(lambda: all(lag == 0 for lane in first.snapshot()["lanes"] for lag in lane["lag"].values()))
        await _committed_where_the_sink_stands(cluster)


@asynccontextmanager
async def flowing(cluster: Cluster) -> AsyncIterator[None]:
    """Usage and entries keep coming inside the block."""
    stop = asyncio.Event()

    async def publish() -> None:
        while not stop.is_set():
            await cluster.publish(20)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        stop.set()
        await task


async def _committed_where_the_sink_stands(cluster: Cluster) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.settings.kafka_bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(cluster.settings.group("bench"))
    finally:
        await admin.close()
    for topic in cluster.topics:
        for partition in range(PARTITIONS):
            committed = offsets[TopicPartition(topic, partition)].offset
            assert committed == cluster.sink.position(topic, partition).offset


async def test_aborted_transactions_leave_holes_that_the_position_steps_over(small: Settings) -> None:
    async with cluster_of(small) as cluster, running(cluster.runner()):
        await cluster.publish(40)
        producer = AIOKafkaProducer(
            bootstrap_servers=small.kafka_bootstrap, transactional_id=f"{small.namespace}.foreign"
        )
        async with producer:
            for commit in (True, False, True, False):
                await producer.begin_transaction()
                for n in range(30):
                    await producer.send(small.topics.usage, b"in a transaction", partition=n % PARTITIONS)
                await (producer.commit_transaction() if commit else producer.abort_transaction())
        await cluster.settled()  # the last thing in each partition is an abort marker
        await cluster.publish(40)
        await cluster.settled()


async def test_s06_s18_a_shortened_log_halts_its_partitions_and_no_other(small: Settings) -> None:
    async with cluster_of(small) as cluster:
        await cluster.publish(80)
        async with running(cluster.runner()):
            await cluster.settled()
        effects = [list(cluster.sink.effects(partition)) for partition in range(PARTITIONS)]
        await cluster.publish(40)
        admin = AIOKafkaAdminClient(bootstrap_servers=small.kafka_bootstrap)
        await admin.start()
        try:  # 20 records were consumed of each: up to the last one of them, and beyond
            starts = {0: 20, 1: 25}
            await admin.delete_records(
                {TopicPartition(small.topics.usage, n): RecordsToDelete(start) for n, start in starts.items()}
            )
        finally:
            await admin.close()
        runner = cluster.runner()
        async with running(runner):
            await until(lambda: shares(runner) == [2])
            await until(lambda: [lane["state"] for lane in runner.snapshot()["lanes"]][:2] == ["halted"] * 2)
            reasons = [lane["reason"] for lane in runner.snapshot()["lanes"]]
            assert "record 19 was removed and the log goes on at 20" in reasons[0]
            assert "position 20 is below the log's start 25" in reasons[1]
            await until(lambda: cluster.sink.position(small.topics.usage, 2).offset == 30)
        assert [cluster.sink.effects(partition) for partition in (0, 1)] == effects[:2]


async def test_s02_s03_a_process_stopped_past_the_rebalance_changes_nothing_when_it_wakes(small: Settings) -> None:
    async with cluster_of(small) as cluster:
        server = await serve(cluster.sink)
        port = str(server.sockets[0].getsockname()[1])
        group, topics = small.group("bench"), cluster.topics
        member = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", str(MEMBER), small.kafka_bootstrap, group, port, *topics),
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await cluster.publish(400)
            await until(lambda: cluster.sink.count("apply", "Applied") > 8)
            runner = cluster.runner()
            async with running(runner):
                await until(lambda: shares(runner) == [2])
                async with flowing(cluster):
                    os.kill(member.pid, signal.SIGSTOP)  # no more heartbeats: after 10 s its partitions are ours
                    await until(lambda: shares(runner) == [4])
                    os.kill(member.pid, signal.SIGCONT)
                    await until(lambda: shares(runner) == [2])  # it joined again
                await cluster.settled()
                member.terminate()
                async with asyncio.timeout(15):
                    assert await member.wait() == 0
                await cluster.publish(40)
                await cluster.settled()
        finally:
            if member.returncode is None:
                member.kill()
                await member.wait()
            server.close()


@pytest.mark.slow
async def test_a_broker_that_is_away_at_the_start_and_killed_later_is_waited_for(
    private_kafka: Callable[..., KafkaServer],
) -> None:
    broker = private_kafka()
    settings = Settings(broker.url, "redis://unused", "postgresql://unused", "away", PARTITIONS)
    await ensure_topics(settings)
    await asyncio.to_thread(broker.kill)
    async with cluster_of(settings) as cluster:
        runner = cluster.runner()
        async with running(runner) as task:
            await until(lambda: runner.snapshot()["joined"] is False)
            await asyncio.to_thread(broker.start)
            await cluster.publish(40)
            await cluster.settled()
            await asyncio.to_thread(broker.kill)
            await until(lambda: bool(runner.snapshot()["kafka_away"]))
            async with Publisher(broker.url, deadline_seconds=0.5) as impatient:
                with pytest.raises(LogAway):
                    await impatient.publish([Outgoing(settings.topics.usage, b"not sent")])
            patient = asyncio.create_task(cluster.publish(40))  # its producer was connected before
            await asyncio.to_thread(broker.start)
            await patient
            await until(lambda: not runner.snapshot()["kafka_away"])
            await cluster.publish(40)
            await cluster.settled()
            assert not task.done()
            assert not cluster.sink.count("apply", "Fenced")
