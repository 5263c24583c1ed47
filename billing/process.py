"""What every consumer process shares: settings, logs, signals, health, exit codes, waiting for servers."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import structlog
import uvloop

from billing.observe.health import HealthServer
from billing.observe.logs import configure
from billing.priority import set_nice
from billing.rating.catalogue import Catalogue
from billing.settings import SettingError, Settings
from billing.stream.backoff import Backoff
from billing.stream.finished import Finished
from billing.stream.runner import Runner

log = structlog.get_logger(__name__)

T = TypeVar("T")

COLLECT_AFTER = 20_000
"""Objects after which the garbage collector looks for cycles; by default it is 700, many times in every batch."""


class Process:
    """One process's life: `stopping` is set by SIGTERM and SIGINT; `health` is what /health answers."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.stopping = asyncio.Event()
        self.health: Callable[[], dict[str, Any]] = lambda: {"healthy": False, "state": "starting"}

    def view(self) -> tuple[bool, dict[str, Any]]:
        details = dict(self.health())
        return bool(details.pop("healthy", False)), details

    async def until_stopping(self, work: Awaitable[T]) -> T | None:
        """The result of `work`, or None when the process is asked to stop first."""
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return await task if task.done() else None
        finally:
            for each in (task, stop):
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each

    async def wait_for_server(
        self, server: str, ask: Callable[[], Awaitable[T]], away: tuple[type[BaseException], ...]
    ) -> T | None:
        """What `ask` answers, asked again with back-off while it raises one of `away`; None when asked to stop."""

        async def until_it_answers() -> T:
            backoff = Backoff(first_seconds=0.2, limit_seconds=5.0)
            while True:
                try:
                    return await ask()
                except away as error:
                    wait_seconds = backoff.next_seconds()
                    retry_in_seconds = round(wait_seconds, 1)
                    log.warning("server.away", server=server, error=str(error), retry_in_seconds=retry_in_seconds)
                    await asyncio.sleep(wait_seconds)

        return await self.until_stopping(until_it_answers())

    async def run(self, runner: Runner[Any], background: asyncio.Task[Any]) -> Finished:
        """Drive `runner` until it ends, the process is asked to stop, or `background` fails (which is raised)."""
        self.health = runner.snapshot
        quiet_collector()
        running = asyncio.create_task(runner.run(), name="runner")
        stop = asyncio.create_task(self.stopping.wait(), name="stopping")
        await asyncio.wait({running, stop, background}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not running.done():
            await runner.drain()
        finished = await running
        if background.cancelled():  # nobody here does that before the end
            raise RuntimeError(f"{background.get_name()} was cancelled")
        if background.done():
            background.result()
        return finished


Main = Callable[[Process], Awaitable[int]]



def quiet_collector() -> None:
    """What there is now, a catalogue of millions above all, stays: the collector need not walk through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


def run_process(name: str, main: Main) -> int:
    """Run one consumer to its end and return its exit code: 0 asked to stop, 1 a bug, 2 refused (one line)."""
    try:
        settings = Settings.from_env()
    except SettingError as error:
        print(f"billing {name}: {error}", file=sys.stderr)
        return 2
    configure(name)
    if settings.nice is not None:
        refused = set_nice(settings.nice)
        if refused is not None:
            log.warning("nice.refused", nice=settings.nice, error=refused)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(name, settings, main))


async def _serve(name: str, settings: Settings, main: Main) -> int:
    process = Process(name, settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stopping.set)
    with ExitStack() as cleanup:
        if settings.metrics_port is not None:
            server = cleanup.enter_context(HealthServer(settings.metrics_port, process.view))
            log.info("health.listening", port=server.port)
        try:
            code = await main(process)
        except Refusal as refusal:
            print(f"billing {name}: {refusal}", file=sys.stderr)
            code = 2
        except Exception:
            log.exception("process.failed")
            code = 1
        log.info("process.stopped", outcome=code)
        return code


class Refusal(Exception):
    """This process must not run against what it found; the message is the one line to print (exit code 2)."""


_WAYS_ON = (
    (r"\d+ partitions|partition \d+ assigned", "`billing partitions show` says what to do"),
    ("the store was written by function version", "`billing rebuild` brings it over (docs/recovery.md)"),
    ("function version is", "`billing migrate` of the build that is to run loads its functions (docs/recovery.md)"),
)


def refusal(reason: str) -> Refusal:
    """With what to do, where the reason is another number of partitions (S16) or other functions (S14), whoever found
    that out."""
    for pattern, way_on in _WAYS_ON:
        if re.search(pattern, reason):
            return Refusal(f"{reason}; {way_on}")
    return Refusal(reason)


def refuse_other_homes(catalogue: Catalogue, settings: Settings) -> None:
    """Raises Refusal where the accounts' homes, as the log has them, are of another number of partitions: during a
    migration they may not all be there yet (S16)."""
    if catalogue.partitions not in (0, settings.partitions):
        raise refusal(
            f"{settings.topics.tariffs} has the homes of accounts in {catalogue.partitions} partitions,"
            f" {settings.partitions} expected"
        )


def exit_code(finished: Finished) -> int:
    """The exit code of a runner's end; a refusal is printed by `run_process`."""
    if finished.exit_code == 2:
        raise refusal(finished.reason)
    return finished.exit_code
