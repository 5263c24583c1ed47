"""`billing bench inflight`: one consumer process draining a full topic into Redis, and what to compare that with."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from redis.asyncio import Redis

from billing.lab.bench.cpu import own_seconds
from billing.lab.bench.drain import watch
from billing.lab.bench.fill import producer
from billing.lab.bench.ground import Ground, prepare, publish_catalogue, publish_openings
from billing.lab.bench.people import People
from billing.lab.bench.series import Pace
from billing.lab.bench.servers import Servers
from billing.lab.supervise import Consumer, ConsumerFailed

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """`events` in each drain; `runs` of everything, of which medians are given."""

    accounts: int
    events: int
    runs: int = 1


async def run_inflight(options: Options, servers: Servers, say: Say) -> list[Pace]:
    """All arms, `runs` times."""
    paces = []
    async with AsyncExitStack() as cleanup:
        redis = Redis.from_url(servers.settings.redis_url)
        cleanup.push_async_callback(redis.aclose)
        made = await cleanup.enter_async_context(producer(servers.settings.kafka_bootstrap))
        people = People(options.accounts, servers.settings.partitions)
        ground = await prepare(servers, people, made, redis)
        await load(ground, say)
        for _ in range(options.runs):
            paces.append(await drain_kafka(ground, options.events, say))
    return paces


async def load(ground: Ground, say: Say) -> None:
    """Every account into the catalogue and, through the consumer, into Redis."""
    begin = time.monotonic()
    await publish_catalogue(ground)
    count = await publish_openings(ground)
    say(f"{count:,} accounts published in {time.monotonic() - begin:.1f} s")
    begin = time.monotonic()
    consumer = start(ground, "load")
    try:
        series = await watch(ground.entries_applied, count, {}, lambda: check(consumer))
    finally:
        await consumer.stop()
    say(f"opened in Redis in {series.looks[-1].at - begin:.1f} s")


async def drain_kafka(ground: Ground, events: int, say: Say, *, hot: bool = False) -> Pace:
    """The consumer as operators run it."""
    before = sum(await ground.positions())
    begin = time.monotonic()
    count = await ground.fill(events, hot=hot)
    say(f"{count:,} events filled in {time.monotonic() - begin:.1f} s")
    consumer = start(ground, "drain")
    cpu = {"consumer": lambda: own_seconds(consumer.pid), **ground.servers.cpu}
    begin = time.monotonic()
    try:
        series = await watch(ground.usage_applied, before + count, cpu, lambda: check(consumer))
    finally:
        await consumer.stop()
    first = next(look.at for look in series.looks if look.total > before)
    pace = series.pace(before, before + count)
    say(f"drained: first record after {first - begin:.1f} s, {pace.per_second:,.0f} events/s")
    return pace


def start(ground: Ground, name: str, kind: str = "inflight") -> Consumer:
    """A consumer process, as operators run it."""
    consumer = Consumer(f"{kind}-{name}", kind, ground.settings, ground.servers.folder)
    consumer.start()
    return consumer


def check(consumer: Consumer) -> None:
    """Raises ConsumerFailed when it has ended."""
    if not consumer.running:
        raise ConsumerFailed(f"{consumer.name} ended with exit code {consumer.exit_code}{consumer.last_words()}")
