"""What is going on, moment by moment: balances known and unknown, usage in each book, charges at the gateway."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from billing.balance.balances import Known, Unknown
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.lab.payments import Gateway, GatewayAway
from billing.lab.pipeline import AWAY, Pipeline
from billing.lab.recharge_books import Counts, count_recharges
from billing.ledger.incarnations import read_identity
from billing.reconcile.health import expecting_reader

LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """One look, begun `at` (`time.monotonic()`). `why_unknown` counts the accounts whose balance is unknown, by the
    reason. Records so far: `published`, and the two books' positions. `charged`: payments that succeeded at the
    gateway."""

    at: float
    known: int = 0
    why_unknown: Counter[str] = field(default_factory=Counter)
    published: int = 0
    applied: int = 0
    settled: int = 0
    charged: int = 0
    counts: Counts = field(default_factory=Counts)

    @property
    def unknown(self) -> int:
        return self.why_unknown.total()


class Observer:
    """Keeps every moment; `newest` is the last of them."""

    def __init__(self, pipeline: Pipeline, gateway: Gateway, accounts: Sequence[str], functions: Functions) -> None:
        self.moments: list[Moment] = [Moment(time.monotonic())]
        self._pipeline = pipeline
        self._gateway = gateway
        self._accounts = accounts
        self._functions = functions

    @property
    def newest(self) -> Moment:
        return self.moments[-1]

    async def run(self, done: asyncio.Event) -> None:
        """Until `done`. A server that is away leaves its numbers as they were; a store that is away knows nothing."""
        while not done.is_set():
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_SECONDS):
                    await done.wait()

    async def balances(self) -> tuple[int, Counter[str]]:
        """How many balances are known now, to a reader that trusts only the store that the ledger expects; and the
        others by the reason."""
        unknown: Counter[str] = Counter()
        try:
            async with self._pipeline.books.pool.acquire(timeout=5) as connection:
                identity = await read_identity(connection)
        except AWAY:
            identity = None
        if identity is None:
            return 0, Counter({"unavailable": len(self._accounts)})
        reader, known = expecting_reader(self._functions, self._pipeline.settings.topics, identity), 0
        for partition, accounts in reader.by_partition(self._accounts).items():
            found = await reader.read_many(partition, accounts)
            if isinstance(found, Unknown):
                unknown[found.reason] += len(accounts)
                continue
            for answer in found.values():
                if isinstance(answer, Known):
                    known += 1
                else:
                    unknown[answer.reason if isinstance(answer, Unknown) else "missing"] += 1
        return known, unknown

    async def look(self) -> None:
        """Look now, and keep what was seen."""
        at, last, meters = time.monotonic(), self.newest, self._pipeline.meters
        charged, counts = last.charged, last.counts
        known, unknown = await self.balances()
        with suppress(GatewayAway):
            charged = sum(payment.succeeded for payment in await self._gateway.payments())
        with suppress(*AWAY):
            counts = await count_recharges(self._pipeline.books.pool)
        self.moments.append(
            Moment(
                at=at,
                known=known,
                why_unknown=unknown,
                published=meters.published.total,
                applied=meters.inflight.total,
                settled=meters.postflight.total,
                charged=charged,
                counts=counts,
            )
        )


@asynccontextmanager
async def observing(pipeline: Pipeline, gateway: Gateway, accounts: Sequence[str]) -> AsyncIterator[Observer]:
    """Looks while the block runs; whatever ends the looking ends the block."""
    settings = pipeline.settings
    client = open_client(settings.redis_url, timeout_s=2.0)
    try:
        observer = Observer(
            pipeline, gateway, accounts, Functions(client, settings.key_space)
        )
        async with asyncio.TaskGroup() as group:
            done = asyncio.Event()  # no cancellation: it could get lost in a client's call
            group.create_task(observer.run(done))
            try:
                yield observer
            finally:
                done.set()
    finally:
        await client.aclose()


