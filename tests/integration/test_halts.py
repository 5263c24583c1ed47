"""The ways back from a halt on a real log: records removed before they were read, a topic made anew (S06, S15, S18)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from command_runner import billing
from reconcile_harness import CREDIT, Deployment, deployed
from usage_builders import ITEM, item

from billing.balance.balances import Unknown
from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.ledger.findings import findings
from billing.ledger.verify import verify
from billing.reconcile.halts import Halt, StoreAway, halts
from billing.reconcile.lifting import Lifted, Lifting, NotLifted, Order
from billing.stream.kafka_reader import LogReader
from billing.stream.publisher import Publisher

pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEM_PRICE = 1_150_000


@pytest_asyncio.fixture(loop_scope="module")
async def running(services: Services) -> AsyncIterator[Deployment]:
    async with isolated(services, partitions=1) as settings, deployed(settings) as deployment:
        deployment.start()
        yield deployment


@asynccontextmanager
async def kafka(running: Deployment) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=running.settings.kafka_bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def lifting(running: Deployment) -> AsyncIterator[Lifting]:
    bootstrap = running.settings.kafka_bootstrap
    async with LogReader(bootstrap) as reader, Publisher(bootstrap) as publisher:
        yield Lifting(running.pool, running.functions, reader, publisher, running.settings)


async def halted(running: Deployment, books: set[str]) -> list[Halt]:
    """The halts, once both books that are named have one."""
    found: list[Halt] = []

    async def all_there() -> bool:
        async with LogReader(running.settings.kafka_bootstrap) as reader:
            seen, away = await halts(running.pool, running.functions, reader, running.settings)
        assert not isinstance(away, StoreAway)
        found[:] = seen
        return {halt.book for halt in seen} >= books

    await running.until(all_there)
    return found


async def lift(running: Deployment, **order: Any) -> Lifted | NotLifted:
    wanted = {"book": "ledger", "topic": "usage.events", "partition": 0, "author": "ada", "reason": "seen", **order}
    async with lifting(running) as ground:
        return await ground.lift(Order(**wanted))


@pytest.mark.slow
async def test_s06_s18_records_removed_before_they_were_read_halt_until_the_loss_is_accepted(
    running: Deployment,
) -> None:
    """Post-flight was away for longer than the log keeps its records; Redis had read them."""
    account = await running.open()
    await running.publish(account, ITEM, item(item_id="settled"))
    await running.until_settled()
    await running.stop("postflight")
    at = (await running.balance(account)).usage_position
    for n in range(3):
        await running.publish(account, ITEM, item(item_id=f"lost-{n}"))

    async def applied() -> bool:
        return (await running.balance(account)).used_micros == 4 * ITEM_PRICE

    await running.until(applied)
    topic = TopicPartition(running.settings.topics.usage, 0)
    async with kafka(running) as admin:
        await admin.delete_records({topic: RecordsToDelete(before_offset=at + 2)})
    running.start("postflight")
    (halt,) = await halted(running, {"ledger"})
    assert (halt.position.offset, halt.since is not None) == (at, True)
    assert "below the log's start" in halt.reason
    assert "--accept-loss" in halt.advice
    assert isinstance(await lift(running), NotLifted)  # the cause persists: nothing is skipped by itself
    assert isinstance(await lift(running, replaced_from=0, topic="billing.signals"), NotLifted)
    assert await lift(running, accept_loss=True) == Lifted("ledger", "usage.events", 0, at + 2, lost=2)
    await running.until_ledger_settled()
    (lost,) = [f async for f in findings(running.pool, kind="records_lost")]
    assert (lost.detail["lost_from"], lost.detail["lost_to"], lost.detail["by"]) == (at, at + 2, "ada")
    assert lost.resolution is None
    report = await running.reconcile()  # Redis knows what the lost records cost
    assert [found.comparison.amount_micros for found in report.named] == [-2 * ITEM_PRICE]  # type: ignore[union-attr]
    await running.rebuild()
    await running.until_settled()
    assert (await running.reconcile()).agreed
    assert all(check.passed for check in await verify(running.pool))


async def test_s18_redis_halts_and_a_rebuild_brings_it_back(running: Deployment) -> None:
    """Only the in-flight consumer was away: the ledger has settled what Redis has not read."""
    account = await running.open()
    await running.until_settled()
    await running.stop("inflight")
    for n in range(3):
        await running.publish(account, ITEM, item(item_id=f"i-{n}"))
    await running.until_ledger_settled()
    topic = TopicPartition(running.settings.topics.usage, 0)
    async with kafka(running) as admin:
        await admin.delete_records({topic: RecordsToDelete(before_offset=2)})
    running.start("inflight")
    (halt,) = await halted(running, {"store"})
    assert halt.since is not None
    assert "billing rebuild" in halt.advice
    assert isinstance(await running.reader.read_balance(account), Unknown)
    assert isinstance(await lift(running, book="store"), NotLifted)
    await running.rebuild()
    await running.until_settled()
    assert (await running.balance(account)).used_micros == 3 * ITEM_PRICE
    assert (await running.reconcile()).agreed


@pytest.mark.slow
async def test_s15_a_topic_made_anew_is_read_from_its_beginning_once_it_is_said_to_be(running: Deployment) -> None:
    """What stands in the new log at offsets that the ledger has used is published again behind its position."""
    account = await running.open()
    for n in range(5):
        await running.publish(account, ITEM, item(item_id=f"old-{n}"))
    await running.until_settled()
    at = (await running.balance(account)).usage_position
    await running.stop("inflight", "postflight")
    topic = running.settings.topics.usage
    async with kafka(running) as admin:
        await admin.delete_topics([topic])

        async def made() -> bool:
            answer = await admin.create_topics(
                [NewTopic(topic, 1, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})]
            )
            return answer.topic_errors[0][1] == 0

        await running.until(made)
    await running.publish(account, ITEM, item(item_id="old-4"))  # settled before: not charged again
    await running.publish(account, ITEM, item(item_id="new"))
    running.start("inflight", "postflight")
    found = await halted(running, {"ledger", "store"})
    assert {halt.book for halt in found} == {"ledger", "store"}
    answer = await lift(running, replaced_from=0)
    assert answer == Lifted("ledger", "usage.events", 0, at, lost=0, published_again=2)
    await running.until_ledger_settled()
    await running.rebuild()
    await running.until_settled()
    balance = await running.balance(account)
    assert balance.used_micros == 6 * ITEM_PRICE
    assert (await running.reconcile()).agreed
    assert all(check.passed for check in await verify(running.pool))
    assert balance.credit_micros == CREDIT


async def test_s17_a_halt_whose_cause_is_gone_is_lifted(running: Deployment) -> None:
    """The position fits the log again, after the right replica leads it, say."""
    account = await running.open()
    await running.publish(account, ITEM, item(item_id="i-1"))
    await running.until_settled()
    async with running.pool.acquire() as connection:
        await connection.execute("update positions set halted = 'record 0 differs' where topic = 'usage.events'")
    client, meta = running.functions.client, running.functions.keys.meta(0)
    await client.hset(meta, "halted", "record 0 differs")  # type: ignore[union-attr]
    await halted(running, {"ledger", "store"})
    who = ("--by", "ada", "--reason", "the right replica leads", "--json")
    code, out, _ = await billing(running.settings, "halts", "lift", "--partition", "0", *who)
    assert (code, json.loads(out)["lifted"]) == (0, True)
    assert isinstance(await lift(running, book="store"), Lifted)
    assert isinstance(await lift(running, book="store"), NotLifted)
    await running.publish(account, ITEM, item(item_id="i-2"))
    await running.until_settled()
    assert (await running.balance(account)).used_micros == 2 * ITEM_PRICE
    kept = [f.detail["by"] async for f in findings(running.pool, kind="halt_lifted")]
    assert kept == ["ada", "ada"]
