"""Longer campaigns: crashes of every part, again and again, under traffic."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from system_harness import MakeTraffic, PrivateServers, RunPipeline

from billing.devstack.server import Server
from billing.lab.pipeline import Pipeline
from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts
from billing.lab.publisher import Publisher, publish_for
from billing.settings import Settings

pytestmark = pytest.mark.slow


async def _crash_servers(servers: Sequence[Server], rng: random.Random, times: int) -> None:
    """SIGKILL one at random, leave it down for a moment, start it on what it had written."""
    for _ in range(times):
        server = rng.choice(servers)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(rng.uniform(0.2, 3))
        await server.start_async()
        await asyncio.sleep(rng.uniform(1, 4))


async def _crash_consumers(pipeline: Pipeline, rng: random.Random, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(rng.uniform(0.5, 5))
        name = rng.choice(sorted(pipeline.supervisor.consumers))
        await pipeline.supervisor.kill(name)
        await asyncio.sleep(rng.uniform(0, 1))
        pipeline.supervisor.restart(name)


@pytest.mark.parametrize("seed", [1, 2])
async def test_s10_servers_crash_under_traffic_and_both_books_are_exact(
    private_servers: PrivateServers, make_traffic: MakeTraffic, run_pipeline: RunPipeline, seed: int
) -> None:
    """Valkey may lose its last second (appendfsync everysec): balances and positions go back together."""
    settings, servers = private_servers
    traffic = make_traffic(seed)
    async with run_pipeline(settings) as pipeline:
        await open_accounts(settings, committed_accounts())
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            crashes = asyncio.create_task(_crash_servers(servers, random.Random(seed), times=6))
            while not crashes.done():
                await publish_for(publisher, traffic, seconds=1, rate=500)
            await crashes
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert found.failed == []


@pytest.mark.parametrize("seed", [1, 2])
async def test_s04_consumers_crash_at_random_two_of_each(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline, seed: int
) -> None:
    traffic = make_traffic(100 + seed)
    async with run_pipeline(settings, each=2) as pipeline:
        await open_accounts(settings, committed_accounts())
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            crashes = asyncio.create_task(_crash_consumers(pipeline, random.Random(seed), times=8))
            while not crashes.done():
                await publish_for(publisher, traffic, seconds=1, rate=1000)
            await crashes
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert found.failed == []
