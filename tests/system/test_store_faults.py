"""The balance store loses replies, refuses writes, goes back in time or is replaced, under traffic and real consumers:
both books are exact in the end, holds included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
from fault_proxy import fault_proxy
from redis.asyncio import Redis
from redis.exceptions import RedisError
from system_harness import MakeTraffic, RunPipeline

from billing.devstack.valkey import ValkeyServer
from billing.lab.pipeline import Pipeline
from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts
from billing.lab.publisher import Publisher, publish_for
from billing.lab.traffic import Traffic
from billing.lab.waiting import until
from billing.ledger.booking import Booked, credit
from billing.settings import Settings

MakeValkey = Callable[..., ValkeyServer]
CREDIT_MICROS = 3_000_000


@dataclass
class Scene:
    """A pipeline under traffic until the block ends; `credited` is what accounts got meanwhile."""

    pipeline: Pipeline
    traffic: Traffic
    credited: dict[str, int] = field(default_factory=dict)

    async def credit(self, accounts: int, key: str) -> None:
        """Credits, as a recharge books them, for the first so many accounts."""
        for account in demo_accounts()[:accounts]:
            booked = await credit(
                self.pipeline.books.pool, account.id, CREDIT_MICROS, "test", author="test", key=f"{key}-{account.id}"
            )
            assert isinstance(booked, Booked), booked
            self.credited[account.id] = self.credited.get(account.id, 0) + CREDIT_MICROS

    async def position(self) -> int:
        """Records that Redis has taken in; waits for a connection to what stands there now."""
        async with asyncio.timeout(20):
            while True:
                with suppress(RedisError):
                    return sum((await self.pipeline.books.inflight_positions()).values())
                await asyncio.sleep(0.05)

    async def until_moved(self, records: int) -> None:
        """Until Redis has taken in so many more records."""

        start = await self.position()

        async def moved() -> bool:
            return await self.position() >= start + records

        await until(moved, f"{records} more records in Redis", timeout_seconds=60)

    async def compare(self) -> None:
        """Everything sent is in both books, exactly."""
        ends = await self.pipeline.usage_ends()
        await self.pipeline.until_applied(ends)
        found = await self.pipeline.compare(self.traffic.expected, demo_accounts(), ends, self.credited)
        assert found.failed == []


@asynccontextmanager
async def _scene(settings: Settings, traffic: Traffic, run_pipeline: RunPipeline) -> AsyncIterator[Scene]:
    async with run_pipeline(settings) as pipeline:
        await open_accounts(settings, committed_accounts())
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            over = asyncio.Event()

            async def publish() -> None:
                while not over.is_set():
                    await publish_for(publisher, traffic, seconds=0.5, rate=600)

            publishing = asyncio.create_task(publish())
            scene = Scene(pipeline, traffic)
            try:
                yield scene
            finally:
                over.set()
                await publishing
        await scene.compare()


async def _with_client(url: str, do: Callable[[Redis], Awaitable[object]]) -> None:
    client = Redis.from_url(url)
    try:
        await do(client)
    finally:
        await client.aclose()


async def _replica(make: MakeValkey, primary_port: int) -> ValkeyServer:
    """A replica that has everything of the primary reached at this port."""
    server = make(config={"replicaof": f"127.0.0.1 {primary_port}"})

    async def synchronised() -> bool:
        found: list[str] = []

        async def ask(client: Redis) -> None:
            found.append((await client.info("replication"))["master_link_status"])

        await _with_client(server.url, ask)
        return found == ["up"]

    await until(synchronised, "a replica in step", timeout_seconds=20)
    return server


async def _promote(server: ValkeyServer) -> None:
    await _with_client(server.url, lambda client: client.replicaof("NO", "ONE"))


async def test_s01_s12_lost_replies_and_refused_writes_under_traffic(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline, private_valkey: MakeValkey
) -> None:
    """A twelfth of all replies is cut after the server has applied the call; then it refuses writes (OOM, NOREPLICAS,
    READONLY) for a while each."""
    server = private_valkey()
    async with fault_proxy(server.port, seed=1) as proxy:
        through = replace(settings, redis_url=proxy.url)
        async with _scene(through, make_traffic(1), run_pipeline) as scene:
            await scene.until_moved(200)
            proxy.cut_share = 1 / 12
            await until(lambda: proxy.cut_replies >= 40, "40 replies cut", timeout_seconds=60)
            proxy.cut_share = 0.0
            await scene.until_moved(100)
            await _with_client(server.url, _refuse_writes)
            await scene.until_moved(500)


async def _refuse_writes(client: Redis) -> None:
    for name, value in (("maxmemory", "1"), ("min-replicas-to-write", "1")):
        await client.config_set(name, value)
        await asyncio.sleep(0.7)
        await client.config_set(name, "0")
        await asyncio.sleep(0.3)
    await client.replicaof("127.0.0.1", "1")  # nobody listens there: read-only, with its data
    await asyncio.sleep(0.7)
    await client.replicaof("NO", "ONE")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_s05_a_lagging_replica_is_promoted_under_load(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline, private_valkey: MakeValkey, seed: int
) -> None:
    """Replication stalls, the primary goes on and dies, the replica takes over without its last second or two."""
    primary = private_valkey()
    async with fault_proxy(primary.port) as front, fault_proxy(primary.port) as link:
        replica = await _replica(private_valkey, link.port)
        through = replace(settings, redis_url=front.url)
        async with _scene(through, make_traffic(50 + seed), run_pipeline) as scene:
            await scene.until_moved(1_000)
            link.stall()
            await scene.credit(20, "lag")
            await scene.until_moved(1_000)
            before = await scene.position()
            await asyncio.to_thread(primary.kill)
            await _promote(replica)
            front.lead_to(replica.port)
            assert await scene.position() < before, "the replica was meant to lag"
            await scene.credit(5, "after")
            await scene.until_moved(1_000)


@pytest.mark.slow
async def test_s07_what_an_isolated_primary_acknowledged_is_recovered_from_the_log(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline, private_valkey: MakeValkey
) -> None:
    """The replica is promoted while consumers still write to the old primary, usage and credits; then they are led to
    the new one and the old one's writes are gone. Twice: the second time back to a fresh replica of the new one."""
    current = private_valkey()
    async with fault_proxy(current.port) as front:
        through = replace(settings, redis_url=front.url)
        async with _scene(through, make_traffic(7), run_pipeline) as scene:
            for turn in range(2):
                other = await _replica(private_valkey, current.port)
                await scene.until_moved(500)
                await _promote(other)  # from here on nothing that `current` acknowledges is anywhere else
                await scene.credit(20, f"split-{turn}")
                await scene.until_moved(1_500)
                shown = await scene.pipeline.balances([demo_accounts()[0].id])
                assert shown[demo_accounts()[0].id].ledger_seq >= 2 + turn, "the old primary has acknowledged credits"
                front.lead_to(other.port)
                discarded, current = current, other
                await asyncio.to_thread(discarded.kill)
                await scene.until_moved(1_500)


@pytest.mark.slow
async def test_s10_a_truncated_aof_under_traffic(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline, private_valkey: MakeValkey
) -> None:
    """Killed, its AOF cut by a little or a lot, started again: balances and positions go back together."""
    server = private_valkey(config={"appendfsync": "always", "auto-aof-rewrite-percentage": "0"})
    through = replace(settings, redis_url=server.url)
    async with _scene(through, make_traffic(10), run_pipeline) as scene:
        for cut_bytes in (7, 5_000, 60_000):
            await scene.until_moved(800)
            await scene.credit(10, f"cut-{cut_bytes}")
            await scene.until_moved(200)
            await asyncio.to_thread(server.kill)
            aof = max(server.directory.rglob("*.incr.aof"), key=lambda path: path.stat().st_size)
            with aof.open("r+b") as file:
                file.truncate(aof.stat().st_size - cut_bytes)
            await server.start_async()
        await scene.until_moved(500)
