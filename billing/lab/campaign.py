"""One run of the demo: prepare, publish, wait, verify."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from billing.lab.checks import Check
from billing.lab.oracle import Oracle
from billing.lab.pipeline import Comparison, Pipeline, running_pipeline
from billing.lab.population import PLANS, demo_accounts, tariff_file
from billing.lab.prepare import committed_accounts, open_accounts, prepare
from billing.lab.publisher import Publisher, publish_for
from billing.lab.report import Report
from billing.lab.supervise import CONSUMERS
from billing.lab.table import Flow, Screen, Snapshot
from billing.lab.traffic import Traffic
from billing.settings import Settings

LOOK_EVERY_SECONDS = 0.25
SHOWN_ACCOUNTS = 8
DOWN_SECONDS = 1.0  # how long a killed consumer stays down


@dataclass(frozen=True, slots=True)
class Options:
    """`rate` in events a second. `kill`: a consumer that is killed in the middle and started again, "random" for any,
    "" for none."""

    seconds: float
    rate: int
    seed: int
    kill: str = ""


class Campaign:
    """Fills the report while it runs."""

    def __init__(self, options: Options, settings: Settings, screen: Screen, report: Report) -> None:
        self._options = options
        self._settings = settings
        self._screen = screen
        self._report = report
        self._accounts = demo_accounts()
        oracle = Oracle([(plan, tariff_file(plan)) for plan in PLANS])
        self._traffic = Traffic(options.seed, self._accounts, oracle, settings.partitions)
        self._phase = time.monotonic()

    async def run(self, logs: Path) -> None:
        """Prepare, publish, wait, verify; what is found goes into the report."""
        self._screen.say("migrating PostgreSQL, creating topics, loading Redis's functions")
        await prepare(self._settings)
        self._screen.say(f"starting the consumers: {', '.join(CONSUMERS)}")
        async with running_pipeline(self._settings, logs) as pipeline:
            await open_accounts(self._settings, committed_accounts())
            self._screen.say(f"{len(PLANS)} tariffs loaded, {len(self._accounts)} accounts opened")
            self._end_phase("prepare")
            await self._publish(pipeline)
            ends = await pipeline.usage_ends()
            await self._drain(pipeline, ends)
            self._screen.settle()
            self._screen.say("comparing both books")
            found = await pipeline.compare(self._traffic.expected, self._accounts, ends)
            self._report.checks += found.checks
            self._count(found, ends, await pipeline.books.inflight_positions())
            self._report.checks.append(_drained(await pipeline.supervisor.stop()))
        self._end_phase("verify")

    # --- traffic -----------------------------------------------------------------------------------------------

    async def _publish(self, pipeline: Pipeline) -> None:
        options = self._options
        self._screen.say(f"publishing {options.rate:,} events a second for {options.seconds:g} s, seed {options.seed}")
        async with Publisher(self._settings.kafka_bootstrap, self._settings.topics.usage) as publisher:
            begin = time.monotonic()
            async with self._watched(
                pipeline, lambda: publisher.acknowledged, lambda: self._publishing(begin)
            ) as group:
                group.create_task(self._kill(pipeline))
                await publish_for(publisher, self._traffic, seconds=options.seconds, rate=options.rate)
            self._report.events["published"] = publisher.acknowledged
        end = time.monotonic()
        await pipeline.look(publisher.acknowledged)
        for name in ("published", "inflight", "postflight"):
            meter = getattr(pipeline.meters, name)
            self._report.throughput[name] = meter.throughput(begin, end)
        self._end_phase("publish")

    def _publishing(self, begin: float) -> str:
        elapsed = min(time.monotonic() - begin, self._options.seconds)
        return f"publishing, {elapsed:.0f} of {self._options.seconds:g} s"

    @asynccontextmanager
    async def _watched(
        self, pipeline: Pipeline, published: Callable[[], int], title: Callable[[], str]
    ) -> AsyncIterator[asyncio.TaskGroup]:
        """What goes on is shown while the block runs; a consumer that ends by itself ends the block."""
        done = asyncio.Event()

        async def watch() -> None:
            while not done.is_set():
                pipeline.supervisor.check()
                await self._show(pipeline, published(), title())
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_SECONDS):
                        await done.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            try:
                yield group
            finally:
                done.set()

    async def _kill(self, pipeline: Pipeline) -> None:
        """Kill the chosen consumer in the middle, and start it again."""
        if not self._options.kill:
            return
        chosen = self._options.kill
        name = random.Random(self._options.seed).choice(CONSUMERS) if chosen == "random" else chosen
        await asyncio.sleep(self._options.seconds / 2)
        await pipeline.supervisor.kill(name)
        self._report.killed.append(name)
        self._screen.say(f"killed {name} with SIGKILL")
        await asyncio.sleep(DOWN_SECONDS)
        pipeline.supervisor.restart(name)
        self._screen.say(f"started {name} again")

    async def _drain(self, pipeline: Pipeline, ends: dict[int, int]) -> None:
        published = self._report.events["published"]
        async with self._watched(pipeline, lambda: published, lambda: "published everything, waiting for both books"):
            await pipeline.until_applied(ends)
        await self._show(pipeline, published, "everything is applied and settled")
        self._end_phase("drain")

    async def _show(self, pipeline: Pipeline, published: int, title: str) -> None:
        await pipeline.look(published)
        meters, now = pipeline.meters, time.monotonic()
        end = meters.logged.total
        shown = [account.id for account in self._accounts[:SHOWN_ACCOUNTS]]
        balances = await pipeline.balances(shown)
        snapshot = Snapshot(
            title,
            Flow(published, meters.published.rate(now), None),
            Flow(meters.inflight.total, meters.inflight.rate(now), max(0, end - meters.inflight.total)),
            Flow(meters.postflight.total, meters.postflight.rate(now), max(0, end - meters.postflight.total)),
            [(account, balances.get(account)) for account in shown],
        )
        self._screen.show(snapshot)

    # --- the report --------------------------------------------------------------------------------------------

    def _count(self, found: Comparison, ends: Mapping[int, int], applied: Mapping[int, int]) -> None:
        """What went through, counted in the books. Whatever is in the log beyond what we published are ticks."""
        report, expected = self._report, self._traffic.expected
        ticks = sum(ends.values()) - report.events["published"]
        report.events |= {
            "applied": sum(min(end, applied.get(partition, 0)) for partition, end in ends.items()) - ticks,
            "settled": len(found.ledger.settled),
            "dead_lettered": len(found.ledger.dead_letters),
            "duplicates": expected.completions - len(found.ledger.settled),
            "differing": len(found.ledger.findings),
            "open_holds": len(found.store.holds),
            "ticks": ticks,
        }
        report.dead_letters = dict(Counter(row.reason for row in found.ledger.dead_letters))
        live = {account: record.credit - record.used for account, record in found.store.accounts.items()}
        equal = [account for account, balance in found.ledger.balances.items() if live.get(account) == balance]
        report.accounts = {"opened": len(self._accounts), "equal_in_both_books": len(equal)}

    def _end_phase(self, name: str) -> None:
        now = time.monotonic()
        self._report.seconds[name] = now - self._phase
        self._phase = now


def _drained(consumers: Mapping[str, bool]) -> Check:
    bad = [name for name, drained in consumers.items() if not drained]
    detail = f"{', '.join(bad)} had to be killed" if bad else f"{', '.join(consumers)} ended when asked to"
    return Check("consumers_drain_on_sigterm", not bad, detail)
