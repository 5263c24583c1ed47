"""The whole pipeline, every consumer a process, with its balance store in a cluster and behind Sentinel, through what
happens to servers there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from command_runner import billing, billing_json
from redis.crc import key_slot
from system_harness import MakeTraffic, RunPipeline
from targets_harness import cluster_servers, cut_off, until, watched_servers

from billing.balance.keys import KeySpace
from billing.devstack.errors import DevStackError
from billing.devstack.valkey_cluster import ValkeyCluster, command
from billing.lab.pipeline import Pipeline
from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts
from billing.lab.publisher import Publisher, publish_for
from billing.lab.traffic import Traffic
from billing.settings import Settings

pytestmark = pytest.mark.slow


class Running:
    """A pipeline and the traffic through it."""

    def __init__(self, settings: Settings, pipeline: Pipeline, traffic: Traffic) -> None:
        self.settings, self.pipeline, self.traffic = settings, pipeline, traffic

    async def during(self, trouble: asyncio.Task[None]) -> None:
        """Publish until `trouble` has passed, and a second more."""
        async with Publisher(self.settings.kafka_bootstrap, self.settings.topics.usage) as publisher:
            while not trouble.done():
                await publish_for(publisher, self.traffic, seconds=1, rate=400)
            await trouble
            await publish_for(publisher, self.traffic, seconds=1, rate=400)

    async def exact(self) -> None:
        """Everything is applied, and both books are what was sent."""
        ends = await self.pipeline.usage_ends()
        await self.pipeline.until_applied(ends)
        found = await self.pipeline.compare(self.traffic.expected, demo_accounts(), ends)
        assert found.failed == []


@asynccontextmanager
async def running(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline, seed: int
) -> AsyncIterator[Running]:
    """Migrated, accounts opened, consumers at work."""
    async with run_pipeline(settings) as pipeline:
        await open_accounts(settings, committed_accounts())
        yield Running(settings, pipeline, make_traffic(seed, partitions=settings.partitions))


async def _move(servers: ValkeyCluster, slot: int) -> None:
    """The slot goes to the next primary, key by key."""
    source = await servers.owner(slot)
    target = servers.primaries[(servers.primaries.index(source) + 1) % len(servers.primaries)]
    await servers.begin_move(slot, source, target)
    while await servers.move_keys(slot, source, target, 1):  # noqa: ASYNC110 - under way for a while
        await asyncio.sleep(0.1)
    await servers.end_move(slot, source, target)


async def _move_whole(servers: ValkeyCluster, slot: int) -> None:
    """The slot goes to the next primary in one step, as Valkey 9 can; servers that cannot do it key by key."""
    source = await servers.owner(slot)
    target = servers.primaries[(servers.primaries.index(source) + 1) % len(servers.primaries)]
    try:
        await command(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", await servers.id(target))
    except DevStackError:
        await _move(servers, slot)

    async def moved() -> bool:
        return await servers.owner(slot) is target

    await until(moved)


async def test_r1_s05_a_cluster_through_moves_of_slots_a_dead_primary_and_a_rebuild(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline
) -> None:
    with cluster_servers(replicas=3) as servers:
        await servers.build()
        settings = replace(settings, redis_url=servers.url)
        keys = KeySpace(settings.key_prefix, settings.partitions)
        slots = [key_slot(keys.meta(partition).encode()) for partition in range(settings.partitions)]
        async with running(settings, make_traffic, run_pipeline, 45) as run:

            async def trouble() -> None:
                await asyncio.sleep(1)
                await _move(servers, slots[1])
                await _move_whole(servers, slots[2])
                dying, (heir,) = servers.primaries[0], servers.replicas[0]
                await cut_off([heir], dying)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(dying.kill)
                heir.resume()

                async def took_over() -> bool:
                    return (await command(heir, "ROLE"))[0] == b"master"

                await until(took_over)

            await run.during(asyncio.create_task(trouble()))
            await run.exact()
            assert len((await billing_json(settings, "guard"))["seen"]["primaries"]) == 3

            async def rebuilt() -> None:
                code, *said = await billing(settings, "rebuild", "--reason", "a test")
                assert code == 0, said

            await run.during(asyncio.create_task(rebuilt()))
            await run.exact()
            for words in (("reconcile",), ("migrate",), ("balance", committed_accounts()[0].id)):
                code, *said = await billing(settings, *words)
                assert code == 0, said


async def test_s05_sentinel_fails_over_under_the_whole_pipeline(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline
) -> None:
    with watched_servers() as watched:
        await watched.ready()
        settings = replace(settings, redis_url=watched.url)
        async with running(settings, make_traffic, run_pipeline, 46) as run:

            async def trouble() -> None:
                await asyncio.sleep(1)
                await cut_off(watched.replicas, watched.primary)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(watched.primary.kill)
                for replica in watched.replicas:
                    replica.resume()
                await until(lambda: _a_primary(watched.replicas), 30)

            await run.during(asyncio.create_task(trouble()))
            await run.exact()
            code, *said = await billing(settings, "reconcile")
            assert code == 0, said


async def _a_primary(servers: Sequence[object]) -> bool:
    with suppress(DevStackError):
        return any([(await command(server, "ROLE"))[0] == b"master" for server in servers])  # type: ignore[arg-type]
    return False
