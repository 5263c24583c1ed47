"""`billing bench admission`: the admission service asked at a fixed rate: alone, beside a consumer at full load, and
there with balances from a replica."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from billing.lab.bench import scrape
from billing.lab.bench.admission_figures import ARMS, FIGURES, arm_values
from billing.lab.bench.cpu import own_seconds
from billing.lab.bench.figures import Report, Values
from billing.lab.bench.ground import Ground, prepared
from billing.lab.bench.loading import load
from billing.lab.bench.machine import conditions
from billing.lab.bench.placing import at_once
from billing.lab.bench.replica import Replica, replica
from billing.lab.bench.running import ArmFailed, check, consumer
from billing.lab.bench.servers import Servers
from billing.lab.processes import Process
from billing.lab.supervise import Consumer, environment
from billing.lab.waiting import until

Say = Callable[[str], None]

WARM_UP_SECONDS = 2.0
CONNECTIONS = 50
ASKED_ABOUT = 100_000  # accounts, at most


@dataclass(frozen=True, slots=True)
class Options:
    """`rate` requests a second for `seconds`, `events` in the backlog; `nice` is added to the consumer's."""

    accounts: int
    events: int
    runs: int = 1
    rate: float = 1_000
    seconds: float = 10.0
    nice: int = 0
    arms: Collection[str] = ARMS


@dataclass(frozen=True, slots=True)
class Answering:
    """How requests are answered: balances from the consumer's own server, or from a replica, and then service and
    replica run as soon as they can."""

    arm: str
    read_from: Replica | None = None


async def run_admission(options: Options, servers: Servers, say: Say) -> Report:
    """Everything, `runs` times on the same servers. Raises ArmFailed, NotPrepared, WaitedTooLong."""
    runs: list[Values] = []
    async with prepared(servers, options.accounts) as ground:
        await load(ground, say)
        for number in range(1, options.runs + 1):
            say(f"run {number} of {options.runs}")
            run = Run(ground, options, say)
            runs.append(await run.all())
        sizes = {"accounts": f"{options.accounts:,}", "rate": f"{options.rate:,.0f} a second, open loop"}
        sizes |= {"backlog": f"{options.events:,} events", "nice of the consumer": f"{options.nice:+d}"}
        if "replica" in options.arms:
            sizes["service and replica, where that answers"] = "SCHED_RR" if run.at_once else "as others"
        sizes["who asks"] = "SCHED_RR" if run.asks_at_once else "as others"
        sizes |= await conditions(servers, ground.redis)
        return Report("Admission: requests beside the pipeline", FIGURES, runs, sizes)


class Run:
    """One run: each arm with a service of its own."""

    def __init__(self, ground: Ground, options: Options, say: Say) -> None:
        self._ground = ground
        self._options = options
        self._say = say
        self.at_once = self.asks_at_once = False  # whether the system let them

    async def all(self) -> Values:
        values: dict[str, float] = {}
        if "idle" in self._options.arms:
            how = Answering("idle")
            async with self._service(how) as service:
                values |= await self._asked(how, service)
        if "beside" in self._options.arms:
            values |= await self._beside(Answering("beside"))
        if "replica" in self._options.arms:
            async with replica(self._ground.servers, self._ground.redis) as read_from:
                self.at_once = at_once(read_from.pid)
                values |= await self._beside(Answering("replica", read_from))
                await read_from.check()
        return values

    async def _beside(self, how: Answering) -> dict[str, float]:
        """Answered while a consumer drains what was written before. Raises ArmFailed where it came to the end."""
        ground, options = self._ground, self._options
        end = sum(await ground.positions()) + await ground.fill(options.events)
        nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + options.nice) if options.nice else None
        async with self._service(how) as service, consumer(ground.servers, "inflight", nice=nice) as process:
            before = await ground.usage_applied()
            await until(lambda: self._moved(before, process), "the consumer to drain", timeout_seconds=60)
            await ground.redis.config_resetstat()
            began, at = asyncio.get_running_loop().time(), await ground.usage_applied()
            values = await self._asked(how, service)
            seconds, applied = asyncio.get_running_loop().time() - began, await ground.usage_applied()
            if applied >= end:
                raise ArmFailed("the backlog was drained before the load ended: give more --events")
            calls = await scrape.call_micros(ground.redis)
        values[f"{how.arm}_events_per_second"] = (applied - at) / seconds
        return values | {f"{how.arm}_call_{tail}": calls[tail] / 1000 for tail in ("p50", "p99")}

    async def _moved(self, before: int, process: Consumer) -> bool:
        check(process)
        return await self._ground.usage_applied() > before

    async def _asked(self, how: Answering, service: Consumer) -> dict[str, float]:
        options, arm = self._options, how.arm
        await self._load(service, WARM_UP_SECONDS)
        service_before = own_seconds(service.pid)
        found, load_seconds = await self._load(service, options.seconds)
        values = arm_values(arm, found, own_seconds(service.pid) - service_before, load_seconds)
        self._say(f"  {arm}: p50 {values[f'{arm}_p50']:.2f} ms, p99 {values[f'{arm}_p99']:.2f} ms, {found['outcomes']}")
        return values

    async def _load(self, service: Consumer, seconds: float) -> tuple[dict[str, object], float]:
        """What the load found, and its CPU in s. A process of its own that runs as soon as it can in every arm: who
        asks is elsewhere in life, and waits for none of these cores."""
        folder = self._ground.servers.folder
        command = [sys.executable, "-m", "billing.lab.admission_load", "--address", f"127.0.0.1:{_port(service)}"]
        command += ["--accounts", str(self._names(folder)), "--rate", str(self._options.rate)]
        command += ["--seconds", str(seconds), "--connections", str(CONNECTIONS)]
        log = folder / "admission-load.log"
        log.unlink(missing_ok=True)
        process = Process("admission-load", command, environment(self._ground.settings), log)
        before = os.times().children_user + os.times().children_system
        process.start()
        try:
            self.asks_at_once = at_once(process.pid)
            await until(lambda: not process.running, "the load's end", timeout_seconds=60 + 2 * seconds)
        finally:
            await process.kill()
        check_ended(process)
        cpu_seconds = os.times().children_user + os.times().children_system - before
        return msgspec.json.decode(log.read_bytes()), cpu_seconds

    def _names(self, folder: Path) -> Path:
        path = folder / "asked-about.txt"
        if not path.exists():
            names = [name for home in self._ground.people.homes for name in home]
            path.write_text("\n".join(names[:: max(1, len(names) // ASKED_ABOUT)]), encoding="utf-8")
        return path

    @asynccontextmanager
    async def _service(self, how: Answering) -> AsyncIterator[Consumer]:
        """`python -m consumers.admission`, ready: it has read the catalogue."""
        await self._ground.heartbeat()
        servers = self._ground.servers
        # an answer by policy would be quicker than one that is worked out, and the backlog is old
        extra = {"BILLING_ADMISSION_ADDRESS": "127.0.0.1:0", "BILLING_ADMISSION_BEHIND_MS": "600000"}
        if how.read_from is not None:
            extra["BILLING_ADMISSION_REDIS_URL"] = how.read_from.url
        started = Consumer("admission", "admission", servers.settings, servers.folder, extra)
        started.start()
        try:
            if how.read_from is not None:
                self.at_once &= at_once(started.pid)
            await started.ready()
            yield started
        finally:
            await started.stop()


def _port(service: Consumer) -> int:
    said = [msgspec.json.decode(line) for line in service.last_lines(50) if line.startswith("{")]
    return next(int(line["port"]) for line in reversed(said) if line.get("event") == "admission.listening")


def check_ended(process: Process) -> None:
    """Raises ArmFailed where it did not end well."""
    if process.exit_code:
        raise ArmFailed(f"{process.name} failed: {' | '.join(process.last_lines(3))}")
