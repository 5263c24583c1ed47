"""`billing demo` as a newcomer runs it: its exit code, its report, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from billing.devstack.services import Services
from billing.lab.waiting import until

BILLING = Path(sys.executable).with_name("billing")


class _Demo:
    """A running `billing demo`, its output read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.output += line.decode()

    async def says(self, text: str, timeout_seconds: float = 60) -> None:
        await until(lambda: text in self.output or self._reading.done(), repr(text), timeout_seconds=timeout_seconds)
        assert text in self.output, self.output

    async def ended(self, timeout_seconds: float = 60) -> int:
        async with asyncio.timeout(timeout_seconds):
            await self._reading
            return await self.process.wait()


@asynccontextmanager
async def _demo(state: Path, *options: str, environ: Mapping[str, str]) -> AsyncIterator[_Demo]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BILLING_", "DEMO_"))}
    process = await asyncio.create_subprocess_exec(
        str(BILLING),
        "demo",
        *options,
        env={**kept, "BILLING_STATE_DIR": str(state), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    demo = _Demo(process)
    try:
        yield demo
    finally:
        if process.returncode is None:
            process.kill()
        await demo.ended(10)


def _family(pid: int) -> dict[int, str]:
    """Every process below `pid`, with its command line."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    family: dict[int, str] = {}
    found = {pid}
    while found := {child for child, parent in parents.items() if parent in found}:
        family |= {child: _command(child) for child in found}
    return family


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


async def test_the_demo_passes_reports_and_leaves_given_servers_as_they_were(
    services: Services, tmp_path: Path
) -> None:
    before = await _databases(services)
    report = tmp_path / "report.json"
    options = ("--seconds", "3", "--rate", "800", "--seed", "2", "--report", str(report))
    async with _demo(tmp_path, *options, environ=services.environ) as demo:
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
    assert found["seconds"]["total"] > 3
    assert "All checks passed." in demo.output
    assert "\x1b" not in demo.output  # plain lines without a terminal
    assert await _databases(services) <= before
    redis = Redis.from_url(services.redis_url)
    try:
        assert [key async for key in redis.scan_iter(match=f"{_namespace(demo)}*")] == []
    finally:
        await redis.aclose()


def _namespace(demo: _Demo) -> str:
    found = re.search(r"under the namespace (\w+)", demo.output)
    assert found is not None, demo.output
    return found[1]


async def _databases(services: Services) -> set[str]:
    connection = await asyncpg.connect(services.postgres_dsn, timeout=10)
    try:
        return {row["datname"] for row in await connection.fetch("select datname from pg_database")}
    finally:
        await connection.close()


async def test_a_consumer_that_dies_fails_the_demo_by_name(services: Services, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ("--seconds", "20", "--rate", "500", "--report", str(report))
    async with _demo(tmp_path, *options, environ=services.environ) as demo:
        await demo.says("publishing, ")
        family = _family(demo.process.pid)
        victim = next(pid for pid, command in family.items() if "consumers.postflight" in command)
        os.kill(victim, signal.SIGKILL)
        assert await demo.ended() == 1, demo.output
        assert not family.keys() & _family(os.getpid()).keys()
    found = json.loads(report.read_text())
    assert found["ok"] is False
    assert found["checks"] == {"the_run_went_through": False}
    assert "postflight ended with exit code -9" in demo.output
    assert "FAILED: the_run_went_through" in demo.output


async def test_ctrl_c_stops_everything_that_was_started(tmp_path: Path) -> None:
    async with _demo(tmp_path, "--seconds", "60", environ={"BILLING_DEVSTACK": "process"}) as demo:
        await demo.says("publishing, ", timeout_seconds=90)
        family = _family(demo.process.pid)
        commands = " ".join(family.values())
        for part in ("kafka.Kafka", "valkey-server", "postgres", *(f"consumers.{c}" for c in ("relay", "inflight"))):
            assert part in commands
        demo.process.send_signal(signal.SIGINT)
        assert await demo.ended() == 130, demo.output
        left = [command for pid in family if (command := _command(pid))]
        assert left == []
    assert "interrupted: everything that was started is stopped" in demo.output
    assert list((tmp_path / "runs").iterdir()) == []
    assert list((tmp_path / "demo-logs").iterdir()) == []
