"""The processes that are measured: consumers as operators run them, and the arms that they are compared with."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from billing.lab.bench.arms.task import Task
from billing.lab.bench.counter import Counter
from billing.lab.bench.cpu import own_seconds
from billing.lab.bench.drain import watch
from billing.lab.bench.placing import keep
from billing.lab.bench.series import STEADY, Pace, Series
from billing.lab.bench.servers import Servers
from billing.lab.processes import Process
from billing.lab.supervise import Consumer, environment
from billing.lab.waiting import until


class ArmFailed(RuntimeError):
    """A measured process ended; the message has the end of its log."""


@asynccontextmanager
async def consumer(
    servers: Servers, kind: str, *, nice: int | None = None, core: int | None = None
) -> AsyncIterator[Consumer]:
    """`python -m consumers.<kind>`, with BILLING_NICE and on a core if given, drained afterwards."""
    extra = {} if nice is None else {"BILLING_NICE": str(nice)}
    started = Consumer(kind, kind, servers.settings, servers.folder, extra)
    started.start()
    try:
        keep(started.pid, core)
        yield started
    finally:
        await started.stop()


@asynccontextmanager
async def arm(servers: Servers, name: str, task: Task, *, core: int | None = None) -> AsyncIterator[Process]:
    """`python -m billing.lab.bench.arms NAME TASK`, on a core if given, killed afterwards."""
    command = [sys.executable, "-m", "billing.lab.bench.arms", name, msgspec.json.encode(task).decode()]
    process = Process(f"arm-{name}", command, environment(servers.settings), servers.folder / f"arm-{name}.log")
    process.start()
    try:
        keep(process.pid, core)
        yield process
    finally:
        await process.kill()


async def watched(
    servers: Servers,
    process: Process,
    count: Callable[[], Awaitable[float]],
    end: float,
    *,
    look_seconds: float = 0.1,
) -> Series:
    """`drain.watch` of one process, its CPU as "consumer"."""
    cpu = {"consumer": lambda: own_seconds(process.pid), **servers.cpu}
    return await watch(count, end, cpu, lambda: check(process), look_seconds=look_seconds)


async def counted(
    servers: Servers, name: str, task: Task, records: int, *, core: int | None = None
) -> Pace:
    """The pace of an arm that counts its records itself."""
    path = servers.folder / "counter"
    path.unlink(missing_ok=True)
    counter = Counter(path)

    async def count() -> float:
        return counter.value

    try:
        async with arm(servers, name, msgspec.structs.replace(task, counter=str(path)), core=core) as process:
            series = await watched(servers, process, count, records)
    finally:
        counter.close()
    return series.pace(0, records, STEADY)


async def all_running(process: Consumer, partitions: int) -> bool:
    """Whether every partition has a lane that waits for records and nothing else."""
    health = await process.health()
    lanes = health.get("lanes", []) if health is not None else []
    return isinstance(lanes, list) and [lane["state"] for lane in lanes] == ["running"] * partitions


async def staged(servers: Servers, task: Task, *, core: int | None = None) -> dict[str, float]:
    """What the arm `stages` found: CPU per event by stage of the consumer, in us. Raises ArmFailed."""
    path = servers.folder / "stages.json"
    path.unlink(missing_ok=True)
    async with arm(servers, "stages", msgspec.structs.replace(task, counter=str(path)), core=core) as process:
        await until(lambda: not process.running, "the stages to be measured", timeout_seconds=600)
    if not path.exists():
        check(process)
    return msgspec.json.decode(path.read_bytes(), type=dict[str, float])


def check(process: Process) -> None:
    """Raises ArmFailed when it has ended."""
    if not process.running:
        last = " | ".join(process.last_lines(3))
        raise ArmFailed(f"{process.name} ended with exit code {process.exit_code}: {last}")
