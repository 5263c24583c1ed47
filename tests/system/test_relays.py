"""Relays side by side, as processes: entries that commit out of order, relays that are killed or stopped."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from billing.lab.prepare import open_accounts, prepare
from billing.lab.supervise import Consumer
from billing.lab.waiting import until
from billing.ledger.booking import Booked, EntryRequest, book
from billing.ledger.database import Connection, Pool, open_pool
from billing.ledger.ownership import SILENT_S
from billing.ledger.retry import in_transaction
from billing.ledger.terms import NewAccount
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from schemas.ledger import decode_entry

ACCOUNTS = [f"relayed-{number:03d}" for number in range(120)]
WRITERS = 24


@dataclass
class Books:
    """What was committed, and the relays that publish it."""

    settings: Settings
    pool: Pool
    relays: list[Consumer]
    committed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, 1))

    async def write(self, count: int) -> None:
        """Book `count` entries from many tasks; some transactions stay open a while after they took their number."""
        rng = random.Random(count)
        waits = iter([rng.choice((0, 0, 0, 0.001, 0.01, 0.05)) for _ in range(count)])

        async def writer() -> None:
            for wait_s in waits:
                account = rng.choice(ACCOUNTS)
                answer = await in_transaction(self.pool, self._entry(account, wait_s))
                assert isinstance(answer, Booked), answer
                self.committed[account] = max(self.committed[account], answer.ledger_seq)

        await asyncio.gather(*(writer() for _ in range(WRITERS)))

    def _entry(self, account: str, wait_s: float) -> Callable[[Connection], Awaitable[object]]:
        async def work(connection: Connection) -> object:
            answer = await book(connection, EntryRequest(account, 1, "credit", "x", "tests"))
            await asyncio.sleep(wait_s)
            return answer

        return work

    async def published(self, within_s: float = 30) -> tuple[int, int]:
        """Wait until the outbox is empty; every account's entries must then be in the log in their order: whoever
        reads them, ignoring what it has had, never misses one. Returns (entries, repeats)."""

        async def drained() -> bool:
            return not await self.pool.fetchval("select exists (select from outbox)")

        await until(drained, "an empty outbox", timeout_seconds=within_s)
        last, records = dict.fromkeys(ACCOUNTS, 0), 0
        async with LogReader(self.settings.kafka_bootstrap) as reader:
            topic = self.settings.topics.entries
            ends = await reader.ends([(topic, partition) for partition in range(self.settings.partitions)])
            for (_, partition), end in ends.items():
                async for record in reader.read(topic, partition, 0, end):
                    entry = decode_entry(record.value)
                    assert entry.ledger_seq <= last[entry.account] + 1, (
                        f"{entry.account} misses {last[entry.account] + 1}"
                    )
                    last[entry.account] = max(last[entry.account], entry.ledger_seq)
                    records += 1
        assert last == self.committed
        return sum(last.values()), records - sum(last.values())

    async def shares(self) -> list[list[int]]:
        """The partitions of each relay that answers."""
        found = []
        for relay in self.relays:
            health = await relay.health() if relay.running else None
            found.append(list(health["partitions"]) if health else [])  # type: ignore[call-overload]
        return found

    async def owned_by(self, *which: int) -> None:
        """Wait until these relays share all partitions."""

        async def whole() -> bool:
            shares = await self.shares()
            mine = sorted(partition for number in which for partition in shares[number])
            return mine == list(range(self.settings.partitions)) and all(shares[number] for number in which)

        await until(whole, f"relays {which} to own everything", timeout_seconds=SILENT_S + 15)


@pytest.fixture
async def books(settings: Settings, tmp_path: Path) -> AsyncIterator[Books]:
    """Accounts in a ledger, three relays."""
    async with _books(settings, tmp_path) as made:
        yield made


@asynccontextmanager
async def _books(settings: Settings, folder: Path) -> AsyncIterator[Books]:
    await prepare(settings)
    new = [NewAccount(name, currency="USD", plan="us-standard") for name in ACCOUNTS]
    await open_accounts(settings, new, timeout_seconds=None)
    pool = await open_pool(settings.owner_dsn, max_size=WRITERS)
    relays = [Consumer(f"relay-{number}", "relay", settings, folder) for number in range(3)]
    try:
        for relay in relays:
            relay.start()
        await asyncio.gather(*(relay.ready() for relay in relays))
        yield Books(settings, pool, relays)
    finally:
        for relay in relays:
            if relay.running:
                relay.signal(signal.SIGCONT)
        await asyncio.gather(*(relay.stop() for relay in relays))
        pool.terminate()


async def test_relays_that_are_killed_lose_no_entry_and_change_no_order(books: Books) -> None:
    await books.owned_by(0, 1, 2)
    writing = asyncio.create_task(books.write(2500))
    for number in (0, 1):
        await asyncio.sleep(0.7)
        await books.relays[number].kill()
    await writing
    entries, repeats = await books.published(within_s=20)
    assert entries == 2500 + len(ACCOUNTS)
    assert repeats <= 2 * 1000 * 8  # what they had in hand
    await books.owned_by(2)


@pytest.mark.slow
async def test_a_stopped_relay_loses_its_partitions_and_what_it_still_publishes_harms_nobody(books: Books) -> None:
    """SIGSTOP in the middle of publishing, several times; the server lets its locks go, another takes over, and when it
    wakes up it publishes what it had in hand after newer entries."""
    await books.owned_by(0, 1, 2)
    stopped = books.relays[0]
    for _ in range(2):
        writing = asyncio.create_task(books.write(1500))
        await asyncio.sleep(0.5)
        stopped.signal(signal.SIGSTOP)
        begun = time.monotonic()
        await writing
        await books.published(within_s=SILENT_S + 15)  # without it
        assert time.monotonic() - begun < SILENT_S + 10
        stopped.signal(signal.SIGCONT)
        await books.write(500)
        await books.published()
        await books.owned_by(0, 1, 2)
    entries, _ = await books.published()
    assert entries == 4000 + len(ACCOUNTS)
