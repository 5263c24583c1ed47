"""`billing bench settle`: one consumer process settling a full topic into PostgreSQL, and what to compare that with."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import msgspec

from billing.lab.bench.arms.naive_ledger import TABLES
from billing.lab.bench.arms.task import Task
from billing.lab.bench.books import Books, open_books
from billing.lab.bench.cores import cores
from billing.lab.bench.cpu import own_seconds
from billing.lab.bench.drain import watch
from billing.lab.bench.figures import Report, Values
from billing.lab.bench.ground import Ground, prepared
from billing.lab.bench.ledger_load import load_all, skip_in_redis
from billing.lab.bench.machine import conditions
from billing.lab.bench.openloop import publish_and_see
from billing.lab.bench.results import Steady, Written
from billing.lab.bench.running import all_running, check, consumer, counted, watched
from billing.lab.bench.series import Pace
from billing.lab.bench.servers import Servers
from billing.lab.bench.settle_figures import ARMS, FIGURES, steady_values, values_of
from billing.lab.waiting import until

Say = Callable[[str], None]

NICE = -10
"""Of the post-flight consumer where it is alone with PostgreSQL, if the system lets us: it is what the backends wait
for, and they are woken on its core."""

STEADY_SHARE = 0.8  # of the backlog's rate
LOOK_SECONDS = 0.01
SKIP_SECONDS = 2.0
COPY_STREAMS = 4


@dataclass(frozen=True, slots=True)
class Options:
    """As of the in-flight benchmark; `naive_events` for the naive consumer."""

    accounts: int
    events: int
    runs: int = 1
    laps: int = 2
    naive_events: int = 10_000
    steady_seconds: float = 10.0
    arms: Collection[str] = ARMS


@dataclass
class Measured:
    """What one run adds up."""

    paces: dict[str, list[Pace]] = field(default_factory=dict)
    written: list[tuple[Written, int, int]] = field(default_factory=list)  # with the events and sessions of the drain
    copies: dict[int, list[tuple[int, float]]] = field(default_factory=dict)  # streams to rows and seconds


async def run_settle(options: Options, servers: Servers, say: Say) -> Report:
    """Everything, `runs` times on the same servers. Raises ArmFailed, NotPrepared, WaitedTooLong."""
    runs: list[Values] = []
    async with prepared(servers, options.accounts) as ground, open_books(servers.settings.postgres_dsn) as books:
        opened_per_second = await load_all(ground, books, say)
        empty_bytes, _ = await books.usage_bytes()
        for number in range(1, options.runs + 1):
            say(f"run {number} of {options.runs}")
            run = Run(ground, books, options, say)
            values = {**await cores(), **await run.all()}
            table_bytes, rows = await books.usage_bytes()
            more = {"usage_bytes": (table_bytes - empty_bytes) / rows, "usage_rows": rows}
            runs.append({**values, **more, "opened_per_second": opened_per_second})
        sizes = {"accounts": f"{options.accounts:,}", "events per arm and run": f"{options.events:,}"}
        sizes["nice of the post-flight consumer"] = f"{run.nice:+d}"
        sizes |= await conditions(servers, ground.redis)
        return Report("Post-flight: usage.events into PostgreSQL", FIGURES, runs, sizes)


class Run:
    """One run: every arm, and the figures that come of them."""

    def __init__(self, ground: Ground, books: Books, options: Options, say: Say) -> None:
        self._ground = ground
        self._books = books
        self._options = options
        self._say = say
        self._uniform: Task | None = None  # what the uniform arm settled last
        self._measured = Measured()
        self.nice = 0  # that the consumer really had

    async def all(self) -> Values:
        arms: list[tuple[str, Callable[[int], Awaitable[Pace]]]] = [
            ("uniform", self._drain),
            ("copy", self._copy),
            ("hot", lambda events: self._drain(events, hot=True)),
            ("both", self._both),
        ]
        wanted, paces = self._options.arms, self._measured.paces
        arms = [(name, work) for name, work in arms if name in wanted or name == "uniform"]
        for lap in range(self._options.laps):
            for name, work in arms if lap % 2 == 0 else arms[::-1]:
                pace = await work(self._options.events // self._options.laps)
                self._say(f"  {name}: {pace.per_second:,.0f} {'rows' if name == 'copy' else 'events'}/s")
                paces.setdefault(name, []).append(pace)
        joined = {name: Pace.joined(each) for name, each in paces.items()}
        if "naive" in wanted:
            joined["naive"] = await self._naive(each_event=True)
            joined["naive_sessions"] = await self._naive(each_event=False)
        values, rate = values_of(joined, self._measured.written, self._copies()), joined["uniform"].per_second
        if "steady" in wanted:
            values |= steady_values(await self._steady(rate * STEADY_SHARE), rate)
        return values

    async def _drain(self, events: int, *, hot: bool = False) -> Pace:
        """The consumer as operators run it, on a topic that was filled before."""
        task, count = await self._filled(events, hot=hot)
        before, sessions = sum(task.begin), self._ground.completed
        written = await self._books.written()
        async with consumer(self._ground.servers, "postflight", nice=NICE) as process:
            series = await watched(self._ground.servers, process, self._books.settled, before + count)
            self.nice = os.getpriority(os.PRIO_PROCESS, process.pid)
        if not hot:
            self._uniform = task
            await until(lambda: self._books.gone("billing-postflight"), "the consumer's backends to end")
            now = await self._books.written()
            self._measured.written.append((now.since(written), count, sessions))
        return series.pace(before, before + count)

    async def _copy(self, _: int) -> Pace:
        """The usage rows of the uniform arm once more, by COPY alone: one stream, then four at once."""
        task = self._task()
        paces = []
        for streams in (1, COPY_STREAMS):
            spans = list(zip(task.begin, task.end, strict=True))
            middle = [(low + high) // 2 for low, high in spans]  # half of the rows each, so that none comes twice
            begin, end = (task.begin, middle) if streams == 1 else (middle, task.end)
            self._ground.fills += 1  # new names for the same sessions, each time
            name = f"copy{self._ground.fills}-"
            rows = [await self._books.copied_out(begin, end, share, streams, name) for share in range(streams)]
            started = time.monotonic()
            copied = sum(await asyncio.gather(*map(self._books.copy_in, rows)))
            seconds = time.monotonic() - started
            self._measured.copies.setdefault(streams, []).append((copied, seconds))
            paces.append(Pace(copied / seconds, seconds, copied, {}))
        return paces[0]

    async def _both(self, events: int) -> Pace:
        """Both consumers at the same time: an event counts when both have taken it. Neither goes before the other: it
        would be done first, and what is measured would be the other alone."""
        await skip_in_redis(self._ground, await self._books.positions())
        task, count = await self._filled(events)
        ground, before = self._ground, sum(task.begin)

        async def taken() -> int:
            pairs = zip(await ground.positions(), await self._books.positions(), strict=True)
            return sum(min(pair) for pair in pairs)

        def check_both() -> None:
            check(one)
            check(other)

        async with consumer(ground.servers, "inflight") as one, consumer(ground.servers, "postflight") as other:
            cpu = {each.name: lambda pid=each.pid: own_seconds(pid) for each in (one, other)}
            series = await watch(taken, before + count, {**cpu, **ground.servers.cpu}, check_both)
        return series.pace(before, before + count)

    async def _naive(self, *, each_event: bool) -> Pace:
        for statement in TABLES:
            await self._books.pool.execute(statement)
        await self._ground.heartbeat()
        task = msgspec.structs.replace(self._task(), each_event=each_event)
        pace = await counted(self._ground.servers, "naive_ledger", task, self._options.naive_events)
        self._say(f"  naive{'' if each_event else ', sessions only'}: {pace.per_second:,.0f} events/s")
        return pace

    async def _steady(self, per_second: float) -> Steady:
        """Fed at a fixed rate, with nothing waiting."""
        ground, seconds = self._ground, self._options.steady_seconds + SKIP_SECONDS
        mixes = ground.mixes(round(per_second * seconds))
        lines = [list(mix.take(round(per_second * seconds / len(mixes)))) for mix in mixes]
        await ground.heartbeat()
        async with consumer(ground.servers, "postflight", nice=NICE) as process:
            await process.ready()
            await until(lambda: all_running(process, len(mixes)), "every partition to be consumed")
            cpu = {"consumer": lambda: own_seconds(process.pid), **ground.servers.cpu}
            before = {name: read() for name, read in cpu.items()}
            outcome = await publish_and_see(
                *(ground.producer, ground.settings.topics.usage, lines, self._books.positions),
                per_second=per_second,
                look_every_seconds=LOOK_SECONDS,
                skip_seconds=SKIP_SECONDS,
            )
            used = {name: read() - before[name] for name, read in cpu.items()}
        self._say(f"  steady at {per_second:,.0f} events/s: {len(outcome.seconds):,} latencies")
        count = sum(map(len, lines))
        return Steady(per_second, outcome, {name: 1e6 * each / count for name, each in used.items()})

    async def _filled(self, events: int, *, hot: bool = False) -> tuple[Task, int]:
        begin = await self._books.positions()
        count = await self._ground.fill(events, hot=hot)
        each = count // len(begin)
        return Task(begin, [offset + each for offset in begin], [], ""), count

    def _task(self) -> Task:
        assert self._uniform is not None  # the first lap begins with it
        return self._uniform

    def _copies(self) -> dict[int, float]:
        """Rows a second by number of streams."""
        return {
            streams: sum(rows for rows, _ in each) / sum(seconds for _, seconds in each)
            for streams, each in self._measured.copies.items()
        }
