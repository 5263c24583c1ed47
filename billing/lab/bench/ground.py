"""A prepared deployment: migrated, tariffs and accounts published as the relay would, and records to be consumed."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from billing.lab.bench.fill import Filler, producer
from billing.lab.bench.mix import Dialled, Line, Mix, dialled
from billing.lab.bench.people import People, assignment, heartbeat, opening, tariffs
from billing.lab.bench.servers import Servers
from billing.lab.prepare import NotPrepared
from billing.operations import Prepared, migrate
from billing.settings import Settings
from schemas.catalogue import catalogue_key, encode_catalogue
from schemas.common import MAX_COUNT


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Ground:
    """What every arm stands on. `fills` counts the fills so far, so that no session comes twice."""

    servers: Servers
    people: People
    timeline: str
    incarnation: int
    numbers: Dialled
    producer: AIOKafkaProducer
    redis: Redis
    fills: int = 0
    completed: int = 0  # sessions in the last fill
    keys: list[str] = field(default_factory=list)  # of the positions in Redis, by partition

    @property
    def settings(self) -> Settings:
        return self.servers.settings

    async def positions(self) -> list[int]:
        """Usage offsets that the balance store will take next, by partition."""
        return await self._offsets("usage_offset")

    async def entries_positions(self) -> list[int]:
        """The same of ledger.entries."""
        return await self._offsets("entries_offset")

    async def usage_applied(self) -> int:
        """Records of usage that the balance store has taken, all partitions."""
        return sum(await self.positions())

    async def entries_applied(self) -> int:
        """The same of ledger.entries."""
        return sum(await self.entries_positions())

    async def _offsets(self, field: str) -> list[int]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for key in self.keys:
                pipe.hget(key, field)
            return [int(offset) for offset in await pipe.execute()]

    async def heartbeat(self) -> None:
        """As the relay sends it: before each arm, for ten minutes."""
        filler = Filler(self.producer, self.settings.topics.tariffs)
        await filler.fill({0: [heartbeat(self.timeline, now_ms())]})

    async def fill(self, events: int, *, hot: bool = False) -> int:
        """The realistic mix, `events` records in all, shared evenly by the partitions; answers how many there are."""
        mixes = self.mixes(events, hot=hot)
        each = events // len(mixes)
        filler = Filler(self.producer, self.settings.topics.usage)
        count = await filler.fill({partition: mix.take(each) for partition, mix in enumerate(mixes)})
        self.completed = sum(mix.completed for mix in mixes)
        await self.heartbeat()
        return count

    def mixes(self, events: int, *, hot: bool = False) -> list[Mix]:
        """A producer for each partition, with sessions that were never there before."""
        self.fills += 1
        each = events // self.settings.partitions
        spread = max(10, min(10_000, each // 20))
        people = [[account] for account in self.people.hot] if hot else self.people.homes
        return [
            Mix(f"{self.fills}-{partition}", accounts, self.numbers, now_ms=now_ms(), spread=spread)
            for partition, accounts in enumerate(people)
        ]


@asynccontextmanager
async def prepared(servers: Servers, accounts: int) -> AsyncIterator[Ground]:
    """A ground for so many accounts, connected while the block runs. Raises NotPrepared."""
    async with AsyncExitStack() as cleanup:
        redis = Redis.from_url(servers.settings.redis_url)
        cleanup.push_async_callback(redis.aclose)
        made = await cleanup.enter_async_context(producer(servers.settings.kafka_bootstrap))
        yield await _prepare(servers, People(accounts, servers.settings.partitions), made, redis)


async def _prepare(servers: Servers, people: People, producer: AIOKafkaProducer, redis: Redis) -> Ground:
    """Migrate; nothing is published yet. Raises NotPrepared."""
    answer = await migrate(servers.settings)
    if not isinstance(answer, Prepared) or answer.incarnation is None:
        raise NotPrepared(f"migrate: {answer}")
    keys = servers.settings.key_space
    return Ground(
        servers,
        people,
        answer.timeline,
        answer.incarnation,
        dialled([tariff.rates for tariff in tariffs(answer.timeline)]),
        producer,
        redis,
        fills=random.randrange(MAX_COUNT),  # seeds need only differ
        keys=[keys.data(p, str(answer.incarnation))[0] for p in range(keys.partitions)],
    )


async def publish_catalogue(ground: Ground) -> None:
    """Tariffs, an assignment per account, the heartbeat."""
    filler, at = Filler(ground.producer, ground.settings.topics.tariffs), now_ms()

    def lines() -> Iterator[Line]:
        for tariff in tariffs(ground.timeline):
            yield Line(catalogue_key(tariff), encode_catalogue(tariff, at))
        for partition in range(ground.settings.partitions):
            for account, _ in ground.people.at_home(partition):
                yield assignment(partition, account, ground.timeline, at)
        yield heartbeat(ground.timeline, now_ms())

    await filler.fill({0: lines()})


async def publish_openings(ground: Ground) -> int:
    """An opening entry per account; answers how many."""
    filler, at = Filler(ground.producer, ground.settings.topics.entries), now_ms()

    def lines(partition: int) -> Iterator[Line]:
        for account, credit_micros in ground.people.at_home(partition):
            yield opening(partition, account, credit_micros, ground.timeline, at)

    return await filler.fill({partition: lines(partition) for partition in range(ground.settings.partitions)})
