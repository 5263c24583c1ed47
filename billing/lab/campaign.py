"""One run of the demo: prepare, publish, wait, verify."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from billing.lab.deployment import Deployment, deployed
from billing.lab.keeper import killings
from billing.lab.oracle import Oracle
from billing.lab.population import PLANS, demo_accounts, tariff_file
from billing.lab.prepare import committed_accounts, open_accounts, prepare
from billing.lab.publisher import Publisher, publish_for
from billing.lab.recharge_checks import recharge_checks
from billing.lab.recharging import Recharging
from billing.lab.report import Report
from billing.lab.supervise import WITH_RECHARGE
from billing.lab.table import Flow, Screen, Snapshot
from billing.lab.tally import count_events, drained, recharges_of, restarted
from billing.lab.traffic import Traffic
from billing.lab.wipe import Wipe
from billing.lab.wipe_checks import wipe_checks
from billing.settings import Settings

LOOK_EVERY_SECONDS = 0.25
SHOWN_BUSIEST, SHOWN_CARDS = 3, 5
ADJUST_AT, WIPE_AT, WIPE_FOR = 0.25, 0.35, 0.25  # shares of the publishing
SHORTEST_WIPE_SECONDS, LONGEST_WIPE_SECONDS = 3.0, 8.0


@dataclass(frozen=True, slots=True)
class Options:
    """`rate` in events a second. `kill`: a consumer that is killed in the middle, "random" for several, "" for none.
    `wipe`: Redis is emptied in the middle."""

    seconds: float
    rate: int
    seed: int
    kill: str = ""
    wipe: bool = False


class Campaign:
    """Fills the report while it runs. `private_redis`: the Redis is the run's own."""

    def __init__(
        self, options: Options, settings: Settings, screen: Screen, report: Report, *, private_redis: bool = True
    ) -> None:
        self._options = options
        self._settings = settings
        self._screen = screen
        self._report = report
        self._private_redis = private_redis
        self._accounts = demo_accounts()
        oracle = Oracle([(plan, tariff_file(plan)) for plan in PLANS])
        self._traffic = Traffic(options.seed, self._accounts, oracle, settings.partitions)
        cards = [account for account in self._accounts[SHOWN_BUSIEST:] if account.chargeable]
        self._shown = [account.id for account in (*self._accounts[:SHOWN_BUSIEST], *cards[:SHOWN_CARDS])]
        self._recharging = Recharging(self._accounts, self._traffic.expected)
        self._began = self._phase = time.monotonic()
        self._wipe: Wipe | None = None

    async def run(self, logs: Path) -> None:
        """Prepare, publish, wait, verify; what is found goes into the report."""
        self._screen.say("migrating PostgreSQL, creating topics, loading Redis's functions")
        await prepare(self._settings)
        self._screen.say(f"starting the payment sandbox and the consumers: {', '.join(WITH_RECHARGE)}")
        everyone = [account.id for account in self._accounts]
        async with deployed(self._settings, logs, everyone, self._screen.say) as deployment:
            await open_accounts(self._settings, committed_accounts())
            cards = sum(account.has_card for account in self._accounts)
            self._screen.say(f"{len(PLANS)} tariffs loaded, {len(everyone)} accounts opened, {cards} with cards")
            await deployment.observer.look()
            self._end_phase("prepare")
            await self._publish(deployment)
            ends = await deployment.pipeline.usage_ends()
            recharge_drained = await self._drain(deployment, ends)
            self._screen.settle()
            await self._verify(deployment, ends, recharge_drained=recharge_drained)
        self._end_phase("verify")

    # --- traffic -----------------------------------------------------------------------------------------------

    async def _publish(self, deployment: Deployment) -> None:
        options, pipeline = self._options, deployment.pipeline
        self._screen.say(f"publishing {options.rate:,} events a second for {options.seconds:g} s, seed {options.seed}")
        async with Publisher(self._settings.kafka_bootstrap, self._settings.topics.usage) as publisher:
            self._began = time.monotonic()
            async with (
                self._watched(deployment, lambda: publisher.acknowledged, self._title),
                asyncio.TaskGroup() as group,
            ):
                group.create_task(self._kill(deployment))
                group.create_task(self._adjust())
                group.create_task(self._strike(deployment))
                await publish_for(publisher, self._traffic, seconds=options.seconds, rate=options.rate)
                end = time.monotonic()
                await pipeline.look(publisher.acknowledged)
            self._report.events["published"] = publisher.acknowledged
        for name in ("published", "inflight", "postflight"):
            meter = getattr(pipeline.meters, name)
            self._report.throughput[name] = meter.throughput(self._began, end)
        self._end_phase("publish")

    def _title(self) -> str:
        elapsed, wiped = time.monotonic() - self._began, self._wipe.since() if self._wipe else ""
        title = f"publishing, {elapsed:.0f} of {self._options.seconds:g} s"
        if elapsed > self._options.seconds:
            title = "published everything"
        return f"{title}; {wiped}" if wiped else title

    async def _at(self, share: float) -> None:
        """Wait until so much of the publishing is over."""
        await asyncio.sleep(max(0.0, self._began + share * self._options.seconds - time.monotonic()))

    async def _kill(self, deployment: Deployment) -> None:
        """Kill consumers; the keeper starts them again."""
        options = self._options
        for seconds, name in killings(options.kill, WITH_RECHARGE, options.seconds, options.seed):
            await self._at(seconds / options.seconds)
            deployment.keeper.crash(name)
            self._report.killed.append(name)
            self._screen.say(f"killed {name} with SIGKILL")

    async def _adjust(self) -> None:
        await self._at(ADJUST_AT)
        count = await self._recharging.adjust(self._settings)
        self._screen.say(f"adjusted {count} accounts without usage to below their thresholds: nobody may be charged")

    async def _strike(self, deployment: Deployment) -> None:
        if not self._options.wipe:
            return
        wipe = self._wipe = Wipe(
            deployment.pipeline,
            deployment.observer,
            deployment.gateway,
            private=self._private_redis,
            pretend=[account for account in self._accounts if account.has_card],
            logs=deployment.logs,
            say=self._screen.say,
        )
        await self._at(WIPE_AT)
        hold_seconds = WIPE_FOR * self._options.seconds
        await wipe.run(min(LONGEST_WIPE_SECONDS, max(SHORTEST_WIPE_SECONDS, hold_seconds)))

    async def _drain(self, deployment: Deployment, ends: dict[int, int]) -> bool:
        """Until both books have everything and recharges are done. Returns whether the recharge consumer drained."""
        published = self._report.events["published"]
        async with self._watched(deployment, lambda: published, lambda: "published everything, waiting for both books"):
            await deployment.pipeline.until_applied(ends)
        self._end_phase("drain")
        async with self._watched(deployment, lambda: published, lambda: "both books have it, recharges end"):
            recharge_drained = await self._recharging.finish(deployment.pipeline, deployment.gateway)
        await self._show(deployment, published, "everything is applied, settled and recharged")
        self._end_phase("recharges")
        return recharge_drained

    # --- what is shown -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _watched(
        self, deployment: Deployment, published: Callable[[], int], title: Callable[[], str]
    ) -> AsyncIterator[None]:
        """What goes on is shown while the block runs; a consumer that ends for good ends the block."""
        done = asyncio.Event()

        async def watch() -> None:
            while not done.is_set():
                deployment.pipeline.supervisor.check()
                await self._show(deployment, published(), title())
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_SECONDS):
                        await done.wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            try:
                yield
            finally:
                done.set()

    async def _show(self, deployment: Deployment, published: int, title: str) -> None:
        pipeline = deployment.pipeline
        await pipeline.look(published)
        meters, now = pipeline.meters, time.monotonic()
        end = meters.logged.total
        balances = await pipeline.balances(self._shown)
        snapshot = Snapshot(
            title,
            Flow(published, meters.published.rate(now), None),
            Flow(meters.inflight.total, meters.inflight.rate(now), max(0, end - meters.inflight.total)),
            Flow(meters.postflight.total, meters.postflight.rate(now), max(0, end - meters.postflight.total)),
            deployment.observer.newest,
            [(account, balances.get(account)) for account in self._shown],
        )
        self._screen.show(snapshot)

    # --- the verdict -------------------------------------------------------------------------------------------

    async def _verify(self, deployment: Deployment, ends: dict[int, int], *, recharge_drained: bool) -> None:
        self._screen.say("comparing both books with each other, the gateway, and what was sent")
        pipeline, report, expected = deployment.pipeline, self._report, self._traffic.expected
        payments = await self._recharging.credited(deployment.gateway)
        found = await pipeline.compare(expected, self._accounts, ends, payments)
        evidence = await self._recharging.evidence(pipeline, deployment.gateway, found.store)
        report.checks += [*found.checks, *recharge_checks(evidence)]
        count_events(report, found, expected, ends, await pipeline.books.inflight_positions())
        report.recharges = recharges_of(evidence)
        if self._wipe is not None:
            report.checks += wipe_checks(self._wipe.damage, deployment.observer.moments)
            report.wiped = self._wipe.damage.summary(self._began)
        report.restarted = list(deployment.keeper.restarts)
        report.checks.append(restarted(report.restarted))
        report.checks.append(drained({"recharge": recharge_drained, **await pipeline.supervisor.stop()}))
        report.moments = deployment.observer.moments
        report.began = self._began

    def _end_phase(self, name: str) -> None:
        now = time.monotonic()
        self._report.seconds[name] = now - self._phase
        self._phase = now
