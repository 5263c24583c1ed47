"""A million accounts, honestly but fast: the records that the relay would write, applied by the real consumer."""

from __future__ import annotations

import time
from collections.abc import Callable

from billing.lab.bench import scrape
from billing.lab.bench.ground import Ground, publish_catalogue, publish_openings
from billing.lab.bench.results import Loaded
from billing.lab.bench.running import consumer, watched


async def load(ground: Ground, say: Callable[[str], None]) -> Loaded:
    """Every account into the catalogue and, through the consumer, into Redis; none has had any usage then."""
    begin = time.monotonic()
    await publish_catalogue(ground)
    count = await publish_openings(ground)
    say(f"{count:,} accounts published in {time.monotonic() - begin:.0f} s")
    before = await scrape.used_bytes(ground.redis)
    async with consumer(ground.servers, "inflight") as process:
        series = await watched(ground.servers, process, ground.entries_applied, count)
    after = await scrape.used_bytes(ground.redis)
    hashes = [key.rpartition(":")[0] + ":acct" for key in ground.keys]
    records = [await ground.redis.memory_usage(key, samples=0) or 0 for key in hashes]
    loaded = Loaded(series.pace(0, count).per_second, (after - before) / count, sum(records) / count)
    say(f"opened in Redis at {loaded.opened_per_second:,.0f} a second, {loaded.bytes_per_account:.0f} bytes each")
    return loaded
