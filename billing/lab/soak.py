"""A soak: a steady load on a deployment whose dedupe generations last seconds instead of hours, so that what is
remembered comes and goes many times; nothing may grow, and both books are exact in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from redis.asyncio import Redis

from billing.balance.keys import DATA_KEYS
from billing.lab.checks import Check
from billing.lab.oracle import Oracle
from billing.lab.pipeline import Pipeline, running_pipeline
from billing.lab.population import PLANS, demo_accounts, tariff_file
from billing.lab.prepare import committed_accounts, open_accounts, prepare
from billing.lab.publisher import Publisher, publish_for
from billing.lab.soak_figures import WARM_UP, Look, flat_checks, table
from billing.lab.traffic import Mix, Traffic
from billing.settings import Settings

GENERATION_SECONDS = 10
LOOKS = WARM_UP + 4  # the fewest that tell anything
MIX = Mix(poison=0.002, never_completed=0.0)  # a hold that is never completed would stay for hours, as it must


@dataclass(frozen=True, slots=True)
class Soaked:
    """What was seen, and the verdicts."""

    looks: Sequence[Look]
    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        return all(check.passed for check in self.checks)


async def soak(
    settings: Settings, logs: Path, *, seconds: float, rate: int, say: Callable[[str], None], seed: int = 1
) -> Soaked:
    """Under `rate` events a second for `seconds`, at least LOOKS generations, on an empty deployment. Redis's memory
    is that of the whole server, so it should be this deployment's own."""
    generation_seconds = max(5, min(GENERATION_SECONDS, int(seconds / LOOKS)))
    settings = replace(settings, generation_ms=generation_seconds * 1000)
    await prepare(settings)
    oracle = Oracle([(plan, tariff_file(plan)) for plan in PLANS])
    traffic = Traffic(seed, demo_accounts(), oracle, settings.partitions, MIX)
    async with running_pipeline(settings, logs) as pipeline:
        await open_accounts(settings, committed_accounts())
        looker, looks = _Looker(pipeline, settings), list[Look]()
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            for _ in range(max(LOOKS, int(seconds / generation_seconds))):
                await publish_for(publisher, traffic, seconds=generation_seconds, rate=rate)
                looks.append(await looker.look(traffic.expected.published))
                say(table(looks).splitlines()[-1] if len(looks) > 1 else table(looks))
                pipeline.supervisor.check()
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        books = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        await looker.close()
    return Soaked(looks, [*flat_checks(looks), *books.checks])


class _Looker:
    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._keys = settings.key_space
        self._redis = Redis.from_url(settings.redis_url, socket_timeout=30)
        self._began = time.monotonic()

    async def close(self) -> None:
        await self._redis.aclose()

    async def look(self, published: int) -> Look:
        sizes = dict.fromkeys(DATA_KEYS, 0)
        for partition in range(self._keys.partitions):
            for name, size in (await self._sizes(partition)).items():
                sizes[name] += size
        ends = await self._pipeline.usage_ends()
        taken = await self._pipeline.books.inflight_positions()
        async with asyncio.timeout(30):
            memory = (await self._redis.info("memory"))["used_memory"]
        processes = self._pipeline.supervisor.consumers
        return Look(
            seconds=time.monotonic() - self._began,
            published=published,
            behind=sum(max(0, end - taken.get(partition, 0)) for partition, end in ends.items()),
            open_sessions=sizes["sess"],
            settled_sessions=sum(size for name, size in sizes.items() if name.startswith("done")),
            unknown=sizes["stray"] + sizes["deriving"],
            signals=sizes["sig"],
            redis_bytes=memory,
            inflight_bytes=_resident(processes["inflight"].pid),
            postflight_bytes=_resident(processes["postflight"].pid),
        )

    async def _sizes(self, partition: int) -> dict[str, int]:
        incarnation = await self._redis.hget(self._keys.meta(partition), "incarnation")
        assert isinstance(incarnation, bytes)  # it was initialised, and replies are not decoded
        keys = dict(zip(DATA_KEYS, self._keys.data(partition, incarnation.decode()), strict=True))
        commands = {"sess": "HLEN", "deriving": "HLEN", "stray": "ZCARD", "sig": "XLEN"}
        commands |= {name: "SCARD" for name in DATA_KEYS if name.startswith("done")}
        async with self._redis.pipeline(transaction=False) as pipe:
            for name, command in commands.items():
                pipe.execute_command(command, keys[name])
            async with asyncio.timeout(30):
                return dict(zip(commands, await pipe.execute(), strict=True))


def _resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
