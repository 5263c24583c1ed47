"""The whole pipeline on real servers, under traffic, verified: what `make run` runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from billing.devstack.choice import How, Service
from billing.devstack.folders import state_dir
from billing.devstack.isolation import isolated
from billing.devstack.services import Services, open_services
from billing.lab.campaign import Campaign, Options
from billing.lab.checks import Check
from billing.lab.interrupts import heed_interrupts
from billing.lab.payments import GatewayAway
from billing.lab.picture import draw
from billing.lab.prepare import NotPrepared
from billing.lab.publisher import Undelivered
from billing.lab.recharging import NotAdjusted
from billing.lab.report import Report
from billing.lab.supervise import ConsumerFailed
from billing.lab.table import Screen
from billing.lab.waiting import WaitedTooLong
from billing.lab.wipe import NotRecovered
from billing.settings import Settings

TROUBLE = (NotPrepared, NotAdjusted, NotRecovered, ConsumerFailed, WaitedTooLong, Undelivered, GatewayAway)
"""What ends a run early."""


def run_demo(options: Options, report_file: Path | None = None, picture: Path | None = None) -> int:
    """Everything from services to report. Returns the exit code: 0, or 1 when a check failed. An interrupt (Ctrl-C,
    SIGTERM) stops what was started and goes on as KeyboardInterrupt."""
    heed_interrupts()
    logs = state_dir() / "demo-logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    report = Report(seed=options.seed)
    with Screen() as screen:
        try:
            _serve_and_run(options, logs, screen, report)
        except KeyboardInterrupt:
            shutil.rmtree(logs, ignore_errors=True)
            screen.settle()
            screen.say("interrupted: everything that was started is stopped")
            raise
        screen.print(report.text())
        if report.ok:
            shutil.rmtree(logs, ignore_errors=True)
        else:
            screen.print(f"The consumers' logs are in {logs}")
    if report_file is not None:
        report.write(report_file)
    if picture is not None and report.moments:
        draw(report, picture)
        print(f"The picture is in {picture}")
    return 0 if report.ok else 1


def _serve_and_run(options: Options, logs: Path, screen: Screen, report: Report) -> None:
    begin = time.monotonic()
    with open_services(purpose="demo", say=screen.say) as services:
        report.seconds["services"] = time.monotonic() - begin
        if set(services.how.values()) != {How.GIVEN}:
            screen.say("what was started answers")
        asyncio.run(_run(options, services, logs, screen, report))
        screen.say("stopping what was started")
    report.seconds["total"] = time.monotonic() - begin


async def _run(options: Options, services: Services, logs: Path, screen: Screen, report: Report) -> None:
    """Trouble that ends the run early is a check that failed, with what was found until then."""
    try:
        async with _corner(services) as settings:
            if settings.namespace:
                screen.say(f"on given servers, under the namespace {settings.namespace}")
            private_redis = services.how[Service.VALKEY] is not How.GIVEN
            await Campaign(options, settings, screen, report, private_redis=private_redis).run(logs)
    except* TROUBLE as group:
        screen.settle()
        report.checks.append(Check("the_run_went_through", False, str(_first(group))))


@asynccontextmanager
async def _corner(services: Services) -> AsyncIterator[Settings]:
    """Private servers are used as they are; on given ones the demo keeps to a namespace and database of its own."""
    settings = Settings.from_env({**os.environ, **services.environ, "BILLING_NAMESPACE": ""})
    async with AsyncExitStack() as cleanup:
        if How.GIVEN in services.how.values():
            settings = await cleanup.enter_async_context(isolated(services, partitions=settings.partitions))
        yield settings


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
