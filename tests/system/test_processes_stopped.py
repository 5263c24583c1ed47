"""Processes that are stopped past the rebalance or whose clocks are wrong, under traffic: both books exact."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from system_harness import MakeTraffic, RunPipeline

from billing.lab.pipeline import Pipeline, running_pipeline
from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts, prepare
from billing.lab.publisher import Publisher, publish_for
from billing.lab.traffic import Traffic
from billing.lab.waiting import until
from billing.settings import Settings

pytestmark = pytest.mark.slow

CLOCK = """\
import os, time
_skew_s = float(os.environ["TEST_CLOCK_SKEW_S"])
_real = time.time
time.time = lambda: _real() + _skew_s
time.time_ns = lambda: int((_real() + _skew_s) * 1e9)
"""
"""A sitecustomize module: the process's clock is wrong, its monotonic clock is not."""


async def _owners(pipeline: Pipeline, name: str) -> int:
    """How many partitions this process runs now."""
    health = await pipeline.supervisor.consumers[name].health() or {}
    lanes = health.get("lanes")
    assert isinstance(lanes, list)
    return sum(1 for lane in lanes if lane["state"] == "running")


async def _compare(pipeline: Pipeline, traffic: Traffic) -> None:
    ends = await pipeline.usage_ends()
    await pipeline.until_applied(ends)
    found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
    assert found.failed == []


@pytest.mark.parametrize("kind", ["inflight", "postflight"])
async def test_s02_a_process_stopped_past_the_rebalance_wakes_up_and_changes_nothing(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline, kind: str
) -> None:
    """SIGSTOP in the middle of batches for longer than the session lasts, SIGCONT once the other owns everything."""
    traffic = make_traffic(2)
    async with run_pipeline(settings, each=2) as pipeline:
        await open_accounts(settings, committed_accounts())
        stopped, other = pipeline.supervisor.consumers[f"{kind}-1"], f"{kind}-2"
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            await publish_for(publisher, traffic, seconds=1, rate=1000)
            stopped.signal(signal.SIGSTOP)
            try:
                await publish_for(publisher, traffic, seconds=4, rate=800)
                # one that was stopped inside a transaction keeps its row locks until PostgreSQL ends it (60 s)
                taken_over = _owns(pipeline, other, settings.partitions)
                await until(taken_over, f"{other} owning all", timeout_seconds=120)
            finally:
                stopped.signal(signal.SIGCONT)
            await publish_for(publisher, traffic, seconds=2, rate=800)
        assert stopped.running
        await until(_owns(pipeline, stopped.name, 1), "the stopped process taking part again", timeout_seconds=60)
        await _compare(pipeline, traffic)


def _owns(pipeline: Pipeline, name: str, at_least: int) -> Callable[[], Awaitable[bool]]:
    async def owns() -> bool:
        return await _owners(pipeline, name) >= at_least

    return owns


@pytest.mark.parametrize("skew_s", [86_400 * 100, -86_400 * 100])
async def test_s38_consumers_whose_clocks_are_wrong_expire_and_charge_as_others_do(
    settings: Settings, make_traffic: MakeTraffic, tmp_path: Path, skew_s: int
) -> None:
    """A hundred days ahead or behind: by their clocks every lease has run out or every record is from the future. The
    backlog that they come back to is no different."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    wrong = {"PYTHONPATH": f"{tmp_path / 'clock'}:{Path.cwd()}", "TEST_CLOCK_SKEW_S": str(skew_s)}
    traffic = make_traffic(38)
    await prepare(settings)
    folder = tmp_path / "logs"
    async with (
        running_pipeline(settings, folder, kinds=("relay",)),
        running_pipeline(settings, folder, kinds=("inflight", "postflight"), extra=wrong) as pipeline,
        Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher,
    ):
        await open_accounts(settings, committed_accounts())
        await publish_for(publisher, traffic, seconds=2, rate=800)
        await pipeline.supervisor.kill("inflight")
        await publish_for(publisher, traffic, seconds=2, rate=800)
        pipeline.supervisor.restart("inflight")
        await publish_for(publisher, traffic, seconds=2, rate=800)
        await _compare(pipeline, traffic)
        store = await pipeline.books.read_store()
        assert store.holds, "some calls were meant to be open"
