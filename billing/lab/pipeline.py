"""A whole pipeline for a while: consumers as processes, traffic through them, and both books compared at the end.

The demo and the system tests share this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import asyncpg
from redis.exceptions import RedisError

from billing.balance.records import AccountRecord
from billing.lab.books import Books, Ledger, Store, open_books
from billing.lab.checks import Check, book_checks, hold_check, position_check
from billing.lab.expected import Expected
from billing.lab.measure import Meter
from billing.lab.own_checks import own_checks
from billing.lab.poison import home_partition
from billing.lab.population import DemoAccount
from billing.lab.supervise import CONSUMERS, Supervisor
from billing.lab.waiting import WaitedTooLong
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway

PATIENCE_SECONDS = 60.0  # without any progress
MOST_SECONDS = 600.0
DERIVING_SECONDS = 30.0

AWAY = (LogAway, RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What a server that is away for the moment raises."""


@dataclass
class Meters:
    """Records so far, by stage; moments are `time.monotonic()`."""

    published: Meter = field(default_factory=Meter)
    logged: Meter = field(default_factory=Meter)  # the log's end, ticks included
    inflight: Meter = field(default_factory=Meter)
    postflight: Meter = field(default_factory=Meter)


class Comparison(NamedTuple):
    """The checks, and the books that they are about."""

    checks: list[Check]
    store: Store
    ledger: Ledger

    @property
    def failed(self) -> list[Check]:
        """Those that did not pass."""
        return [check for check in self.checks if not check.passed]


class Pipeline:
    """Processes, both books and the log of one deployment; see `running_pipeline`."""

    def __init__(self, settings: Settings, supervisor: Supervisor, books: Books, log: LogReader) -> None:
        self.settings = settings
        self.supervisor = supervisor
        self.books = books
        self.log = log
        self.meters = Meters()

    async def usage_ends(self) -> dict[int, int]:
        """Partition to the end of usage.events now."""
        return await self._ends(self.settings.topics.usage)

    async def _ends(self, topic: str) -> dict[int, int]:
        ends = await self.log.ends([(topic, partition) for partition in range(self.settings.partitions)])
        return {partition: end for (_, partition), end in ends.items()}

    async def look(self, published: int) -> None:
        """Bring the meters up to date; a server that is away for the moment leaves its meter as it is."""
        meters = self.meters
        meters.published.add(time.monotonic(), published)
        looks = (
            (meters.logged, self.usage_ends),
            (meters.inflight, self.books.inflight_positions),
            (meters.postflight, self.books.postflight_positions),
        )
        for meter, ask in looks:
            with suppress(*AWAY):
                meter.add(time.monotonic(), sum((await ask()).values()))

    async def balances(self, accounts: Sequence[str]) -> dict[str, AccountRecord]:
        """The given accounts as Redis has them now; none while it is away."""
        home = {account: home_partition(account, self.settings.partitions) for account in accounts}
        with suppress(*AWAY):
            return await self.books.accounts(home)
        return {}

    async def until_applied(self, ends: Mapping[int, int], *, most_seconds: float = MOST_SECONDS) -> None:
        """Wait until both books have taken in the log up to `ends`, and Redis the ledger's entries that are published
        now, as long as they come nearer; then until the accounts that Redis is deriving are derived, for at most
        DERIVING_SECONDS. Raises WaitedTooLong, ConsumerFailed."""
        deadline = time.monotonic() + most_seconds
        best, moved = 0, time.monotonic()
        entries = await self._ends(self.settings.topics.entries)
        while True:
            self.supervisor.check()
            reached, wanted = await self._reached(ends, entries)
            if reached == wanted:
                return await self._until_derived()
            now = time.monotonic()
            if reached > best:
                best, moved = reached, now
            if now > deadline or now > moved + PATIENCE_SECONDS:
                raise WaitedTooLong(f"both books are {wanted - reached:,} records short of the log's end")
            await asyncio.sleep(0.1)

    async def _until_derived(self) -> None:
        """An account whose ledger was away lately is tried again after ten seconds; what then still is unknown is for
        the comparison to tell."""
        deadline = time.monotonic() + DERIVING_SECONDS
        while time.monotonic() < deadline:
            self.supervisor.check()
            with suppress(*AWAY):
                if await self.books.deriving() == 0:
                    return
            await asyncio.sleep(0.1)

    async def _reached(self, ends: Mapping[int, int], entries: Mapping[int, int]) -> tuple[int, int]:
        wanted = 2 * sum(ends.values()) + sum(entries.values())
        try:
            books = [
                (ends, await self.books.inflight_positions()),
                (ends, await self.books.postflight_positions()),
                (entries, await self.books.entries_positions()),  # which may stand back, after a failover, for a second
            ]
        except AWAY:
            return 0, wanted
        return sum(min(end, book.get(p, 0)) for logged, book in books for p, end in logged.items()), wanted

    async def compare(
        self,
        expected: Expected,
        accounts: Sequence[DemoAccount],
        ends: Mapping[int, int],
        credited: Mapping[str, int] | None = None,
    ) -> Comparison:
        """Positions, both books against each other and against what was sent, the open holds, and the pipeline's own
        verdicts. `credited` is what accounts got since they were opened (micro-units; below 0: what was taken)."""
        checks = [
            position_check("applied_to_the_end_in_redis", ends, await self.books.inflight_positions()),
            position_check("settled_to_the_end_in_postgresql", ends, await self.books.postflight_positions()),
        ]
        store, ledger = await self.books.read_store(), await self.books.read_ledger()
        checks += book_checks(expected, accounts, store, ledger, credited)
        # log time is never ahead of the clock by more than a moment on one machine; five seconds to be on the safe side
        checks.append(hold_check(expected, store, int(time.time() * 1000) + 5_000))
        checks += await own_checks(self.settings)
        return Comparison(checks, store, ledger)


@asynccontextmanager
async def running_pipeline(
    settings: Settings,
    log_folder: Path,
    *,
    kinds: Sequence[str] = CONSUMERS,
    each: int = 1,
    extra: Mapping[str, str] | None = None,
) -> AsyncIterator[Pipeline]:
    """Consumers that run while the block does, whatever happens in it; the deployment has been migrated before.
    `extra` are settings beyond those of `settings`."""
    supervisor = Supervisor(settings, log_folder, kinds, each, extra)
    try:
        async with open_books(settings) as books, LogReader(settings.kafka_bootstrap, client_id="lab") as log:
            await supervisor.start()
            yield Pipeline(settings, supervisor, books, log)
    finally:
        await asyncio.shield(supervisor.stop())
