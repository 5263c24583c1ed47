"""Logs that are not what they were: both consumers halt, say why, and skip nothing (S06, S15, S17, S18).

A broker of the test's own; the records are one-off purchases, one batch each, so that a log can be cut between them.
"""

from __future__ import annotations

import asyncio
import signal
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from command_runner import billing_json
from system_harness import RunPipeline

from billing.devstack.kafka import KafkaServer
from billing.lab.pipeline import Pipeline
from billing.lab.prepare import open_accounts
from billing.lab.waiting import until
from billing.lab.wire import envelope, message
from billing.ledger.terms import NewAccount
from billing.settings import Settings
from billing.stream.publisher import Outgoing, Publisher
from billing.stream.topics import ensure_topics
from billing.usage.partitioner import home_partition

LOOKUP_MICROS = 8_000  # us-standard
BOTH = ("inflight", "postflight")
QUICK = {"log.retention.check.interval.ms": "300", "log.initial.task.delay.ms": "100"}
VICTIM, OTHER = "victim", "other"


@dataclass
class Scene:
    """A pipeline on a broker of its own, with an account in the partition that suffers and one in another."""

    broker: KafkaServer
    pipeline: Pipeline

    @property
    def settings(self) -> Settings:
        return self.pipeline.settings

    @property
    def partition(self) -> int:
        return home_partition(VICTIM, self.settings.partitions)

    async def publish(self, account: str, sessions: Iterable[str]) -> None:
        async with Publisher(self.settings.kafka_bootstrap) as publisher:
            for session in sessions:  # each acknowledged before the next: batches of one
                data = {"item_id": session, "sku": "lookup", "quantity": 1}
                event = envelope("usage.item.completed.v1", f"e-{session}", account, int(time.time() * 1000))
                record = message(event, data, "structured")
                await publisher.publish(
                    [Outgoing(self.settings.topics.usage, record.value or b"", record.key, record.headers)]
                )

    async def consumed(self) -> None:
        await self.pipeline.until_applied(await self.pipeline.usage_ends())

    def signal(self, number: signal.Signals, names: Sequence[str] = BOTH) -> None:
        for name in names:
            self.pipeline.supervisor.consumers[name].signal(number)

    async def leave(self, *names: str) -> None:
        for name in names:
            assert await self.pipeline.supervisor.leave(name)

    async def start(self, *names: str) -> None:
        for name in names:
            self.pipeline.supervisor.restart(name)

    async def halted(self, why: str, *, names: Sequence[str] = BOTH, within_s: float = 60) -> None:
        """Wait until the consumers have halted the partition, and no other, and say `why`; the reason also stands in
        both stores."""
        for name in names:
            await until(lambda name=name: self._halted_in(name), f"{name} to halt", timeout_seconds=within_s)  # type: ignore[misc]
            lanes = await self._lanes(name)
            halted = {n: reason for n, (state, reason) in lanes.items() if state == "halted"}
            assert list(halted) == [self.partition], halted
            assert why in halted[self.partition]
        if "postflight" in names:
            assert why in (await self._ledger_halt() or "")
        if "inflight" in names:
            balance = await billing_json(self.settings, "balance", VICTIM)
            assert balance["status"] == "unknown"
            assert balance["reason"].startswith("halted: ")

    async def _halted_in(self, name: str) -> bool:
        return any(state == "halted" for state, _ in (await self._lanes(name)).values())

    async def _lanes(self, name: str) -> dict[int, tuple[str, str]]:
        health = await self.pipeline.supervisor.consumers[name].health() or {}
        lanes = health.get("lanes", ())
        return {lane["partition"]: (lane["state"], lane["reason"]) for lane in lanes}  # type: ignore[attr-defined]

    async def _ledger_halt(self) -> str | None:
        connection = await asyncpg.connect(self.settings.owner_dsn, timeout=10)
        try:
            return await connection.fetchval(
                "select halted from positions where topic = 'usage.events' and partition = $1", self.partition
            )
        finally:
            await connection.close()

    async def charged(self, *, victim: Iterable[str], other: Iterable[str]) -> None:
        """Exactly these sessions are settled, and Redis used as much for the other account, whose partition goes on."""
        await until(lambda: self._settled(set(victim), set(other)), "the sessions to be settled", timeout_seconds=30)
        store = await self.pipeline.books.read_store()
        assert store.accounts[OTHER].used == len(set(other)) * LOOKUP_MICROS

    async def _settled(self, victim: set[str], other: set[str]) -> bool:
        settled = (await self.pipeline.books.read_ledger()).settled
        found = {(key.account, key.session) for key in settled}
        wanted = {(VICTIM, session) for session in victim} | {(OTHER, session) for session in other}
        assert found <= wanted
        return found == wanted

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    def cut(self, batches: int) -> None:
        """Take the last batches from the log of the victim's partition, as a leader that never had them would. The
        broker must not be running."""
        folder = self.broker.data / f"{self.settings.topics.usage}-{self.partition}"
        (segment,) = sorted(folder.glob("*.log"))
        raw = segment.read_bytes()
        begins, at = [], 0
        while at + 12 <= len(raw):
            begins.append(at)
            at += 12 + struct.unpack_from(">i", raw, at + 8)[0]
        assert at == len(raw), "a torn batch"
        segment.write_bytes(raw[: begins[-batches]])


@pytest.fixture(scope="module")
def broker(module_kafka: Callable[..., KafkaServer]) -> KafkaServer:
    return module_kafka(config=QUICK)


@pytest.fixture
async def scene(settings: Settings, broker: KafkaServer, run_pipeline: RunPipeline) -> AsyncIterator[Scene]:
    """Both accounts open; nine sessions of each consumed."""
    assert home_partition(VICTIM, 8) != home_partition(OTHER, 8)
    async with run_pipeline(replace(settings, kafka_bootstrap=broker.url)) as pipeline:
        found = Scene(broker, pipeline)
        new = [
            NewAccount(name, currency="USD", plan="us-standard", credit_micros=50_000_000) for name in (VICTIM, OTHER)
        ]
        await open_accounts(pipeline.settings, new)
        for account in (VICTIM, OTHER):
            await found.publish(account, OLD)
        await found.consumed()
        yield found


OLD = [f"old-{number}" for number in range(9)]
NEW = [f"new-{number}" for number in range(9)]


@pytest.mark.slow
async def test_s17_a_log_that_was_cut_and_grew_again_halts_the_running_consumers_before_anything_is_skipped(
    scene: Scene,
) -> None:
    """The hard case: the consumers run all the while and see the log only when it is longer than their position again.
    What is read behind the position would be new, what came before it would be skipped."""
    scene.signal(signal.SIGSTOP)  # shorter than a session: they keep their partitions, and read on where they were
    await asyncio.to_thread(scene.broker.kill)
    scene.cut(3)
    await scene.broker.start_async()
    await scene.publish(VICTIM, NEW)
    scene.signal(signal.SIGCONT)
    await scene.halted("record 8 differs")
    await scene.publish(OTHER, NEW)
    await scene.charged(victim=OLD, other=[*OLD, *NEW])


@pytest.mark.slow
async def test_s17_a_log_that_was_cut_and_is_shorter_halts(scene: Scene) -> None:
    await asyncio.to_thread(scene.broker.kill)
    scene.cut(3)
    await scene.broker.start_async()
    await scene.halted("position 9 is beyond the log's end 6")
    await scene.publish(OTHER, NEW)
    await scene.charged(victim=OLD, other=[*OLD, *NEW])


@pytest.mark.slow
async def test_s15_a_topic_that_was_made_anew_under_its_name_halts(scene: Scene) -> None:
    """Deleted and made again while the consumers are away; the other partition's log is another one, too, shorter."""
    await scene.leave(*BOTH)
    async with scene.admin() as admin:
        await admin.delete_topics([scene.settings.topics.usage])
        await until(lambda: _made_anew(scene.settings), "the topic to be made anew", timeout_seconds=20)
    await scene.publish(VICTIM, NEW)
    await scene.publish(VICTIM, ["more"])
    await scene.start(*BOTH)
    for name in BOTH:
        await until(lambda name=name: _both_halted(scene, name), f"{name} to halt both", timeout_seconds=30)  # type: ignore[misc]
        lanes = await scene._lanes(name)
        assert "record 8 differs" in lanes[scene.partition][1]
        assert "beyond the log's end 0" in lanes[home_partition(OTHER, 8)][1]
    await scene.charged(victim=OLD, other=OLD)


async def _made_anew(settings: Settings) -> bool:
    try:
        return settings.topics.usage in (await ensure_topics(settings)).created  # type: ignore[union-attr]
    except Exception:
        return False


async def _both_halted(scene: Scene, name: str) -> bool:
    return sum(state == "halted" for state, _ in (await scene._lanes(name)).values()) == 2


@pytest.mark.slow
async def test_s06_a_position_below_the_logs_start_halts(scene: Scene) -> None:
    await scene.leave(*BOTH)
    await scene.publish(VICTIM, NEW)
    async with scene.admin() as admin:
        pair = TopicPartition(scene.settings.topics.usage, scene.partition)
        await admin.delete_records({pair: RecordsToDelete(12)})
    await scene.start(*BOTH)
    await scene.halted("position 9 is below the log's start 12")
    await scene.publish(OTHER, NEW)
    await scene.charged(victim=OLD, other=[*OLD, *NEW])


@pytest.mark.slow
async def test_s18_retention_shorter_than_the_lag_halts_who_lags_and_no_one_else(scene: Scene) -> None:
    """Post-flight is away while the log's retention takes everything; in-flight has read it all and goes on."""
    await scene.leave("postflight")
    await scene.publish(VICTIM, NEW)
    end = 2 * len(OLD)

    async def read() -> bool:
        return (await scene.pipeline.books.inflight_positions()).get(scene.partition, 0) == end

    await until(read, "in-flight to have read them", timeout_seconds=30)
    changed = {"retention.ms": "1", "message.timestamp.type": "LogAppendTime"}
    async with scene.admin() as admin:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, scene.settings.topics.usage, configs=changed)]
        )

    async def gone() -> bool:
        return (await scene.pipeline.log.bounds(scene.settings.topics.usage, scene.partition)).start == end

    await until(gone, "the records to be removed", timeout_seconds=30)
    await scene.start("postflight")
    await scene.halted(f"position 9 is below the log's start {end}", names=["postflight"])
    assert (await scene.pipeline.books.read_store()).unknown == {}
