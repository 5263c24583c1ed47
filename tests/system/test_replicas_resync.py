"""Four replicas resynchronise in full at peak load, as in July 2013 (S40). The figures are printed (`pytest -s`): on a
machine that others use they are no test."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from balance_harness import PARTITION, TOPICS, Store, batch, charge, entries, hold, opened
from redis.asyncio import Redis

from billing.balance.balances import PartitionView
from billing.devstack.valkey import ValkeyServer
from billing.stream.sink import Applied, Owner

pytestmark = pytest.mark.slow

ACCOUNTS = 40_000
CHUNK = 500
PHASE_SECONDS = 3.0
OWNER = Owner(1, "n")
DEBUG = {"enable-debug-command": "yes"}


@dataclass
class Load:
    """Batches of 500 operations, one after the other, as fast as they are answered."""

    store: Store
    offset: int = 0
    seconds: list[float] = field(default_factory=list)  # of each call since the last `report`
    since: float = 0.0
    over: bool = False

    async def run(self) -> None:
        while not self.over:
            first, ops = self.offset, []
            for offset in range(first, first + CHUNK, 2):
                account = f"a{offset * 7919 % ACCOUNTS}"
                ops += [hold(offset, account, f"s{offset}", 600), charge(offset + 1, account, f"s{offset - 64}", 500)]
            began = time.monotonic()
            answer = await self.store.sink.apply(batch(OWNER, first, first + CHUNK, ops))
            self.seconds.append(time.monotonic() - began)
            assert answer == Applied(first + CHUNK), answer
            self.offset += CHUNK

    def begin(self) -> None:
        self.seconds, self.since = [], time.monotonic()

    def report(self, name: str) -> float:
        """Operations a second since `begin`."""
        per_second = len(self.seconds) * CHUNK / (time.monotonic() - self.since)
        cuts = statistics.quantiles(self.seconds, n=1000)
        p50, p99, p999 = (1000 * cuts[at] for at in (499, 989, 998))
        print(
            f"\nS40 {name:28}{per_second:>10,.0f} operations/s   call p50 {p50:.1f} p99 {p99:.1f} p99.9 {p999:.1f}"
            f" max {1000 * max(self.seconds):.1f} ms"
        )
        return per_second


async def _info(server: ValkeyServer, section: str) -> dict[str, Any]:
    client = Redis.from_url(server.url, socket_timeout=60)
    try:
        return dict(await client.info(section))
    finally:
        await client.aclose()


async def _open_accounts(store: Store) -> None:
    for first in range(0, ACCOUNTS, CHUNK):
        made = [opened(f"a{number}") for number in range(first, first + CHUNK)]
        assert await store.sink.apply(entries(OWNER, first, made)) == Applied(first + CHUNK)


async def _until_in_step(replicas: list[ValkeyServer], primary: ValkeyServer, *, exactly: bool) -> None:
    """All replicas have had their snapshot and follow; `exactly`: up to the primary's last byte."""
    async with asyncio.timeout(120):
        for replica in replicas:
            while True:
                found = await _info(replica, "replication")
                end = (await _info(primary, "replication"))["master_repl_offset"]
                if found["master_link_status"] == "up" and (not exactly or found["slave_repl_offset"] == end):
                    break
                await asyncio.sleep(0.05)


async def _digest(server: ValkeyServer) -> Any:
    """A hash of the whole dataset."""
    client = Redis.from_url(server.url, socket_timeout=60)
    try:
        return await client.execute_command("DEBUG", "DIGEST")
    finally:
        await client.aclose()


async def test_s40_four_replicas_resync_in_full_at_peak_load(private_valkey: Callable[..., ValkeyServer]) -> None:
    primary = private_valkey(config=DEBUG)
    async with Store.open(primary.url) as store:
        await store.start()
        assert await store.claimed() == OWNER
        await _open_accounts(store)
        load = Load(store)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(1)
        load.begin()
        await asyncio.sleep(PHASE_SECONDS)
        alone = load.report("alone")
        load.begin()
        config = {**DEBUG, "replicaof": f"127.0.0.1 {primary.port}"}
        replicas = [await asyncio.to_thread(private_valkey, config=config) for _ in range(4)]
        await _until_in_step(replicas, primary, exactly=False)
        resyncing = load.report("four replicas resync")
        load.begin()
        await asyncio.sleep(PHASE_SECONDS)
        load.report("four replicas follow")
        load.over = True
        await running
        assert (await _info(primary, "stats"))["sync_full"] >= 4
        await _until_in_step(replicas, primary, exactly=True)
        digest = await _digest(primary)
        assert [await _digest(replica) for replica in replicas] == [digest] * 4
        view = await store.reader.read_partition(PARTITION)
        assert isinstance(view, PartitionView), view  # neither torn nor lost
        assert view.positions[TOPICS.usage].offset == load.offset
        assert resyncing > alone / 20, "throughput was meant to hold"
