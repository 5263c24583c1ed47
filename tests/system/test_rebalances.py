"""Two processes per group, joining and leaving under load."""

from __future__ import annotations

import asyncio

from system_harness import MakeTraffic, RunPipeline

from billing.lab.pipeline import Pipeline
from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts
from billing.lab.publisher import Publisher, publish_for
from billing.settings import Settings


async def _come_and_go(pipeline: Pipeline) -> None:
    """The second of each leaves in order, the first is killed, both come back: every step is a rebalance."""
    processes = pipeline.supervisor
    for leaving, killed in (("inflight-2", "inflight-1"), ("postflight-2", "postflight-1"), ("relay-2", "relay-1")):
        await processes.leave(leaving)
        await asyncio.sleep(0.5)
        processes.restart(leaving)
        await processes.consumers[leaving].ready()
        await processes.kill(killed)
        processes.restart(killed)
        await processes.consumers[killed].ready()


async def test_s03_two_owners_per_group_under_rebalances_have_effects_once(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline
) -> None:
    traffic = make_traffic(3)
    async with run_pipeline(settings, each=2) as pipeline:
        await open_accounts(settings, committed_accounts())
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            moving = asyncio.create_task(_come_and_go(pipeline))
            while not moving.done():
                await publish_for(publisher, traffic, seconds=1, rate=1000)
            await moving
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert found.failed == []
