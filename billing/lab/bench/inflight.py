"""`billing bench inflight`: one consumer process draining a full topic into Redis, and what to compare that with."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

import msgspec

from billing.lab.bench import scrape
from billing.lab.bench.arms.task import Task
from billing.lab.bench.cores import cores
from billing.lab.bench.figures import Report, Values
from billing.lab.bench.ground import Ground, prepared
from billing.lab.bench.inflight_figures import ARMS, FIGURES, latency_values, values_of
from billing.lab.bench.loading import load
from billing.lab.bench.machine import conditions
from billing.lab.bench.openloop import publish_and_see
from billing.lab.bench.placing import keep, places
from billing.lab.bench.rawlook import raw_positions
from billing.lab.bench.results import Loaded, Outcome
from billing.lab.bench.running import all_running, arm, consumer, counted, staged, watched
from billing.lab.bench.series import Pace
from billing.lab.bench.servers import Servers
from billing.lab.waiting import until

Say = Callable[[str], None]

LOOK_SECONDS = 0.002
SKIP_SECONDS = 1.0  # of the open loop: connections and code warm up
TAILS = ("p99", "p99.9", "p100")


@dataclass(frozen=True, slots=True)
class Options:
    """`events` in each drained arm of a run, in `laps` drains: forwards through the arms and backwards again, so that a
    machine that gets slower favours none; `arms` beside the uniform one. `naive_events` for the naive consumer, a fifth
    of them with a commit each."""

    accounts: int
    events: int
    runs: int = 1
    laps: int = 2
    naive_events: int = 20_000
    latency_seconds: float = 10.0
    arms: Collection[str] = ARMS


async def run_inflight(options: Options, servers: Servers, say: Say) -> Report:
    """Everything, `runs` times on the same servers. Raises ArmFailed, NotPrepared, WaitedTooLong."""
    runs: list[Values] = []
    async with prepared(servers, options.accounts) as ground:
        where = places()
        keep(servers.store_pid, where.store)
        loaded = await load(ground, say)
        for number in range(1, options.runs + 1):
            say(f"run {number} of {options.runs}")
            runs.append({**await cores(), **await Run(ground, options, where.consumer, say).all(loaded)})
        sizes = {"accounts": f"{options.accounts:,}", "events per arm and run": f"{options.events:,}"}
        sizes |= where.stated
        sizes |= await conditions(servers, ground.redis)
        return Report("In-flight: usage.events into Redis", FIGURES, runs, sizes)


class Run:
    """One run: every arm, and the figures that come of them."""

    def __init__(self, ground: Ground, options: Options, core: int | None, say: Say) -> None:
        self._ground = ground
        self._options = options
        self._core = core  # of the consumer, and of what stands for it; the naive one, which waits each time, is free
        self._say = say
        self._uniform: Task | None = None  # what the uniform arm drained last
        self._paces: dict[str, list[Pace]] = {}
        self._calls: list[dict[str, float]] = []
        self._applies: Tally[float] = Tally()
        self._first_seconds: list[float] = []

    async def all(self, loaded: Loaded) -> Values:
        wanted = self._options.arms
        arms: list[tuple[str, Callable[[int], Awaitable[Pace]]]] = [
            ("uniform", self._drain),
            ("memory", lambda events: self._fed("memory", events)),
            ("hot", lambda events: self._drain(events, hot=True)),
            ("decode", self._decode),
            ("packed", lambda events: self._fed("packed", events)),
        ]
        arms = [(name, work) for name, work in arms if name in wanted or name == "uniform"]
        for lap in range(self._options.laps):
            for name, work in arms if lap % 2 == 0 else arms[::-1]:
                pace = await work(self._options.events // self._options.laps)
                self._say(f"  {name}: {pace.per_second:,.0f} events/s")
                self._paces.setdefault(name, []).append(pace)
        paces = {name: Pace.joined(each) for name, each in self._paces.items()}
        if "naive" in wanted:
            paces["naive"] = await self._naive(self._options.naive_events, commit_each=False)
            paces["naive_commit"] = await self._naive(self._options.naive_events // 5, commit_each=True)
        values = values_of(paces, self._call_micros(), scrape.client_millis(self._applies), loaded)
        values["first_seconds"] = sum(self._first_seconds) / len(self._first_seconds)
        if "stages" in wanted:
            stages = await staged(self._ground.servers, self._task(), core=self._core)
            values |= {f"stage_{name}": micros for name, micros in stages.items()}
        if "latency" in wanted:
            rate = paces["uniform"].per_second / 2
            values |= latency_values(await self._open_loop(rate), rate)
        return values

    async def _drain(self, events: int, *, hot: bool = False) -> Pace:
        """The consumer as operators start it, on a topic that was filled before."""
        task, count = await self._filled(events, hot=hot)
        ground, began, before = self._ground, time.monotonic(), sum(task.begin)
        await ground.redis.config_resetstat()
        async with consumer(ground.servers, "inflight", core=self._core) as process:
            series = await watched(ground.servers, process, ground.usage_applied, before + count)
            if not hot:
                self._uniform = task
                self._first_seconds.append(next(look.at for look in series.looks if look.total > before) - began)
                number, micros = await scrape.calls(ground.redis)
                self._calls.append(
                    await scrape.call_micros(ground.redis) | {"records": count / number, "micros": micros / count}
                )
                await process.health()  # which finds the port
                self._applies.update(await scrape.apply_seconds(process.port, ground.settings.topics.usage))
        return series.pace(before, before + count)

    async def _fed(self, name: str, events: int) -> Pace:
        """An arm that reads its records into memory first and moves the store's positions."""
        task, count = await self._filled(events)
        async with arm(self._ground.servers, name, task, core=self._core) as process:
            before = sum(task.begin)
            series = await watched(self._ground.servers, process, self._ground.usage_applied, before + count)
        return series.pace(before, before + count)

    async def _decode(self, _: int) -> Pace:
        """The records that the uniform arm drained, without the store."""
        task = self._task()
        records = sum(task.end) - sum(task.begin)
        return await counted(self._ground.servers, "decode", task, records, core=self._core)

    def _task(self) -> Task:
        assert self._uniform is not None  # the first lap begins with it
        return self._uniform

    async def _naive(self, events: int, *, commit_each: bool) -> Pace:
        await self._ground.heartbeat()
        task = msgspec.structs.replace(self._task(), commit_each=commit_each)
        pace = await counted(self._ground.servers, "naive", task, events)
        self._say(f"  naive{', a commit each' if commit_each else ''}: {pace.per_second:,.0f} events/s")
        return pace

    async def _open_loop(self, per_second: float) -> Outcome:
        ground, seconds = self._ground, self._options.latency_seconds + SKIP_SECONDS
        mixes = ground.mixes(round(per_second * seconds))
        lines = [list(mix.take(round(per_second * seconds / len(mixes)))) for mix in mixes]
        await ground.heartbeat()
        async with (
            consumer(ground.servers, "inflight", core=self._core) as process,
            raw_positions(ground.settings.redis_url, ground.keys) as positions,
        ):
            await process.ready()
            await until(lambda: all_running(process, ground.settings.partitions), "every partition to be consumed")
            outcome = await publish_and_see(
                *(ground.producer, ground.settings.topics.usage, lines, positions.look),
                per_second=per_second,
                look_every_seconds=LOOK_SECONDS,
                skip_seconds=SKIP_SECONDS,
            )
        self._say(f"  open loop at {per_second:,.0f} events/s: {len(outcome.seconds):,} latencies")
        return outcome

    async def _filled(self, events: int, *, hot: bool = False) -> tuple[Task, int]:
        """Write records; which they are, and how many."""
        begin = await self._ground.positions()
        count = await self._ground.fill(events, hot=hot)
        each = count // len(begin)
        entries = await self._ground.entries_positions()
        return Task(begin, [offset + each for offset in begin], entries, ""), count

    def _call_micros(self) -> dict[str, float]:
        """Of the uniform drains: the mean of their medians, the worst of their tails."""
        names = self._calls[0].keys()
        return {
            name: max(each[name] for each in self._calls)
            if name in TAILS
            else sum(each[name] for each in self._calls) / len(self._calls)
            for name in names
        }
