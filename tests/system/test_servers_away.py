"""Kafka, Redis and PostgreSQL stopped and started again under traffic: the processes wait and go on (R9, R11)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from system_harness import MakeTraffic, PrivateServers, RunPipeline

from billing.devstack.server import Server
from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts
from billing.lab.publisher import Publisher, publish_for

AWAY_SECONDS = 2.0


async def _each_away(servers: Sequence[Server]) -> None:
    """One after the other is stopped, away for a while, and started again on its data and port."""
    for server in servers:
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(AWAY_SECONDS)
        await server.start_async()
        await asyncio.sleep(1)  # some traffic before the next


async def test_r9_every_server_away_in_turn_and_nothing_is_lost(
    private_servers: PrivateServers, make_traffic: MakeTraffic, run_pipeline: RunPipeline
) -> None:
    settings, servers = private_servers
    traffic = make_traffic(9, partitions=settings.partitions)
    async with run_pipeline(settings) as pipeline:
        await open_accounts(settings, committed_accounts())
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            troubles = asyncio.create_task(_each_away(servers))
            while not troubles.done():
                await publish_for(publisher, traffic, seconds=1, rate=500)
            await troubles
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert found.failed == []
