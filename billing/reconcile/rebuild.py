"""`billing rebuild`: the balance store from the ledger and the log, while usage keeps flowing (design, section 8).

The order matters. Every partition is fenced first (balances are Unknown(rebuilding), consumers wait). Then the end of
`ledger.entries` is captured, and only then the ledger's snapshot taken: an entry below the captured end was published
after its commit, so the snapshot has it; one at or above it is replayed, and its `ledger_seq` decides whether it is
news. Usage goes on at the ledger's own position of that snapshot. The new incarnation comes into force last.

It may be interrupted anywhere and run again: balances stay Unknown until a run is complete.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from billing.balance.admin import Positions
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.records import HoldRecord
from billing.ledger.database import Pool, open_pool
from billing.ledger.snapshots import LedgerSnapshot, PartitionPosition, ledger_snapshot
from billing.reconcile.filling import Filling, chunks
from billing.reconcile.holds import Session
from billing.reconcile.ledger_side import LedgerSide, open_ledger_side
from billing.reconcile.moved_holds import moved_holds, together
from billing.reconcile.preflight import Refusal, check_ground
from billing.reconcile.progress import Progress, Stage, silent
from billing.reconcile.replay import end_position, holds_at, read_catalogue, replay_start
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.record import Position
from billing.usage.classify import Classifier


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The store is ready. How many accounts, open holds and remembered sessions were written."""

    incarnation: int
    timeline: str
    accounts: int
    holds: int
    settled: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RebuildRefused:
    """Why it did not take place, or ended early (then every balance stays Unknown until a run is complete)."""

    reason: str


async def rebuild(
    settings: Settings, *, reason: str = "rebuild", progress: Progress = silent, moving: bool = False
) -> Rebuilt | RebuildRefused:
    """Fill the balance store anew; `reason` is kept with the incarnation. `moving`: as part of a migration to other
    partitions. Raises what asyncpg raises, LogAway, OutOfRange or CatalogueNotReady when PostgreSQL or Kafka are in
    trouble: run it again then."""
    client = open_client(settings.redis_url)
    pool = await open_pool(settings.postgres_dsn, max_size=2, application_name="billing-rebuild")
    functions = Functions(client, settings.key_space)
    try:
        async with (
            open_ledger_side(settings.postgres_dsn) as ledger,
            LogReader(settings.kafka_bootstrap, client_id="billing-rebuild") as reader,
        ):
            if not await ledger.lock():
                return RebuildRefused("another rebuild is running")
            ground = await check_ground(ledger, pool, reader, functions, settings, moving=moving)
            incarnation = await ledger.mint(above=ground.newest, reason=reason)
            filling = Filling(functions, incarnation)
            work = _Work(settings, ledger, pool, reader, filling, functions.keys.generation_ms, progress)
            return await work.run(incarnation)
    except Refusal as refusal:
        return RebuildRefused(str(refusal))
    finally:
        await client.aclose()
        await asyncio.wait_for(pool.close(), timeout=5)


@dataclass(frozen=True, slots=True)
class _Work:
    settings: Settings
    ledger: LedgerSide
    pool: Pool
    reader: LogReader
    filling: Filling
    generation_ms: int
    progress: Progress

    async def run(self, incarnation: int) -> Rebuilt:
        started = time.monotonic()
        await self._fence()
        entries = await self._entries_ends()
        async with ledger_snapshot(self.pool) as snapshot:
            accounts = await self._accounts(snapshot)
            settled = await self._settled(snapshot)
            timeline, at = snapshot.timeline, snapshot.positions
        holds = await self._holds(at)
        await self._finish(timeline, at, entries)
        return Rebuilt(incarnation, timeline, accounts, holds, settled, time.monotonic() - started)

    @property
    def _partitions(self) -> range:
        return range(self.settings.partitions)

    async def _fence(self) -> None:
        stage = Stage(self.progress, "fence", len(self._partitions))
        for partition in self._partitions:
            await self.filling.begin(partition)
            stage.at(partition + 1)
        stage.end()

    async def _entries_ends(self) -> dict[int, Position]:
        topic = self.settings.topics.entries
        return {partition: await end_position(self.reader, topic, partition) for partition in self._partitions}

    async def _accounts(self, snapshot: LedgerSnapshot) -> int:
        """Accounts as of the snapshot, without holds. Returns how many."""
        written, stage = 0, Stage(self.progress, "accounts", await self.ledger.account_count())
        for partition in self._partitions:
            offset = snapshot.positions[partition].position.offset
            async for page in snapshot.accounts(partition):
                await self.filling.accounts(partition, {account: found.record(0) for account, found in page}, offset)
                written += len(page)
                stage.at(written)
        stage.end()
        return written

    async def _settled(self, snapshot: LedgerSnapshot) -> int:
        """Sessions that a duplicate may still come of, by the dedupe generation of their records' log time."""
        written, stage = 0, Stage(self.progress, "settled", len(self._partitions))
        for partition in self._partitions:
            generation = snapshot.positions[partition].log_time_ms // self.generation_ms
            since_ms = max(0, (generation - 2) * self.generation_ms)
            async for page in snapshot.settled_since(partition, since_ms):
                for number, group in groupby(page, lambda found: found.log_time_ms // self.generation_ms):
                    sessions = [(found.kind, found.account, found.session) for found in group]
                    await self.filling.settled(partition, sessions, number * self.generation_ms)
                written += len(page)
            stage.at(partition + 1)
        stage.end()
        return written

    async def _holds(self, at: Mapping[int, PartitionPosition]) -> int:
        """Replay the log of the longest lease; what is open there and not settled in the ledger is written."""
        topic, written, done = self.settings.topics.usage, 0, 0
        catalogue = await read_catalogue(self.reader, self.settings.topics.tariffs)
        starts = [await replay_start(self.reader, topic, p, at[p].log_time_ms) for p in self._partitions]
        lengths = [max(0, at[p].position.offset - starts[p]) for p in self._partitions]
        brought = await moved_holds(self.pool, self.reader, self.settings, catalogue, at)
        stage = Stage(self.progress, "holds", sum(lengths))
        for partition in self._partitions:
            start, end = starts[partition], at[partition].position.offset

            def advanced(offset: int, before: int = done - start) -> None:
                stage.at(before + offset)

            found = await holds_at(
                self.reader.read(topic, partition, start, end),
                Classifier(catalogue, self.settings.partitions),
                at[partition].log_time_ms,
                advanced,
            )
            holds = await self._not_settled(end, together(brought.get(partition, {}), found))
            await self.filling.holds(partition, holds, end)
            written += len(holds)
            done += lengths[partition]
            stage.at(done)
        stage.end()
        return written

    async def _not_settled(self, below_offset: int, found: Mapping[Session, HoldRecord]) -> dict[Session, HoldRecord]:
        kept = dict(found)
        for sessions in chunks(list(found)):
            for session in await self.ledger.settled_of(below_offset, sessions):
                del kept[session]
        return kept

    async def _finish(
        self, timeline: str, at: Mapping[int, PartitionPosition], entries: Mapping[int, Position]
    ) -> None:
        stage = Stage(self.progress, "finish", len(self._partitions))
        for partition in self._partitions:
            where = Positions(at[partition].position, entries[partition], at[partition].log_time_ms)
            await self.filling.finish(partition, timeline, where)
            stage.at(partition + 1)
        stage.end()
