"""`billing demo` as a newcomer runs it: its exit code, its report, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

import asyncpg
import pytest
from demo_harness import Demo, command_of, family_of, running_demo
from redis.asyncio import Redis

from billing.devstack.services import Services


async def test_the_demo_passes_reports_and_leaves_given_servers_as_they_were(
    services: Services, tmp_path: Path
) -> None:
    before = await _databases(services)
    report = tmp_path / "report.json"
    options = ("--seconds", "3", "--rate", "800", "--seed", "2", "--report", str(report))
    async with running_demo(tmp_path, *options, environ=services.environ) as demo:
        assert await demo.ended() == 0, demo.output
    found = json.loads(report.read_text())
    assert found["ok"] is True
    assert len(found["checks"]) >= 10
    assert set(found["checks"].values()) == {True}
    assert found["events"]["published"] == found["events"]["applied"] > 2000
    assert found["events"]["settled"] > 0 < found["events"]["dead_lettered"]
    assert found["events"]["duplicates"] > 0
    assert found["accounts"] == {"opened": 200, "equal_in_both_books": 200}
    assert {"published", "inflight", "postflight"} == found["throughput"].keys()
    assert found["recharges"]["succeeded"] > 0
    assert found["recharges"]["refused"]["no_usage"] > 0
    assert 0 < found["recharges"]["seconds_to_confirmed"]["median"] < 30
    assert found["seconds"]["total"] > 3
    assert "All checks passed." in demo.output
    assert "\x1b" not in demo.output  # plain lines without a terminal
    # tests beside this one have databases too, which go when they end; one that the demo left would stay
    left = await _databases(services) - before
    async with asyncio.timeout(120):
        while left & await _databases(services):  # noqa: ASYNC110 - another process drops them
            await asyncio.sleep(0.5)
    redis = Redis.from_url(services.redis_url)
    try:
        assert [key async for key in redis.scan_iter(match=f"{_namespace(demo)}*")] == []
    finally:
        await redis.aclose()


def _namespace(demo: Demo) -> str:
    found = re.search(r"under the namespace (\w+)", demo.output)
    assert found is not None, demo.output
    return found[1]


async def _databases(services: Services) -> set[str]:
    connection = await asyncpg.connect(services.postgres_dsn, timeout=10)
    try:
        return {row["datname"] for row in await connection.fetch("select datname from pg_database")}
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "in_background"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
async def test_ctrl_c_and_sigterm_stop_everything_that_was_started(
    tmp_path: Path, number: signal.Signals, in_background: bool
) -> None:
    environ = {"BILLING_DEVSTACK": "process"}
    async with running_demo(tmp_path, "--seconds", "60", environ=environ, in_background=in_background) as demo:
        await demo.says("publishing, ", timeout_seconds=90)
        family = family_of(demo.process.pid)
        commands = " ".join(family.values())
        servers = ("kafka.Kafka", "valkey-server", "postgres", "lab.sandbox")
        for part in (*servers, "consumers.relay", "consumers.recharge"):
            assert part in commands
        demo.process.send_signal(number)
        assert await demo.ended() == 130, demo.output
        left = [command for pid in family if (command := command_of(pid))]
        assert left == []
    assert "interrupted: everything that was started is stopped" in demo.output
    assert list((tmp_path / "runs").iterdir()) == []
    assert list((tmp_path / "demo-logs").iterdir()) == []
