"""Each consumer killed with SIGKILL in the middle and started again: both books exact."""

from __future__ import annotations

import asyncio

import pytest
from system_harness import MakeTraffic, RunPipeline

from billing.lab.pipeline import Pipeline
from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts
from billing.lab.publisher import Publisher, publish_for
from billing.settings import Settings


async def _kill_and_restart(pipeline: Pipeline, name: str, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(1.0)  # let it be in the middle of something
        await pipeline.supervisor.kill(name)
        await asyncio.sleep(0.3)
        pipeline.supervisor.restart(name)
        await pipeline.supervisor.consumers[name].ready()


@pytest.mark.parametrize("name", ["inflight", "postflight"])
async def test_s04_a_consumer_killed_in_the_middle_goes_on_from_its_sink_s_position(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline, name: str
) -> None:
    traffic = make_traffic(4)
    async with run_pipeline(settings) as pipeline:
        await open_accounts(settings, committed_accounts())
        async with (
            Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(publish_for(publisher, traffic, seconds=6, rate=1500))
            group.create_task(_kill_and_restart(pipeline, name, times=2))
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert found.failed == []


@pytest.mark.slow
async def test_the_relay_killed_in_the_middle_loses_and_repeats_no_entry(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline
) -> None:
    """Accounts are opened in pieces while the relay is killed again and again; traffic shows that all are there."""
    traffic, accounts = make_traffic(5), committed_accounts()
    async with run_pipeline(settings) as pipeline:
        async with asyncio.TaskGroup() as group:
            kills = group.create_task(_kill_and_restart(pipeline, "relay", times=2))
            for begin in range(0, len(accounts), 20):
                await open_accounts(settings, accounts[begin : begin + 20], timeout_seconds=None)
                await asyncio.sleep(0.2)
            await kills
        await open_accounts(settings, accounts)  # the same again, and wait until Redis shows all
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            await publish_for(publisher, traffic, seconds=2, rate=1500)
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert found.failed == []
