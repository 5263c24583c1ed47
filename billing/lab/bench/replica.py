"""A replica of the benchmark's balance store, for those who only read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from billing.devstack.valkey import ValkeyServer
from billing.lab.bench.running import ArmFailed
from billing.lab.bench.servers import Servers
from billing.lab.waiting import until

IN_STEP_SECONDS = 120.0  # a million accounts are sent first
MOST_BEHIND_BYTES = 16 * 2**20  # of the primary's writes


@dataclass(frozen=True, slots=True)
class Replica:
    """A second Valkey that follows the first."""

    url: str
    pid: int
    client: Redis
    primary: Redis

    async def linked(self) -> bool:
        """Whether it has all that there was when it was linked, and follows."""
        told = await self.client.info("replication")
        return bool(told["master_link_status"] == "up")

    async def check(self) -> None:
        """Raises ArmFailed where it does not follow, or is far behind: what it answers is then quick and worthless."""
        wanted = (await self.primary.info("replication"))["master_repl_offset"]
        behind = wanted - (await self.client.info("replication"))["slave_repl_offset"]
        if behind > MOST_BEHIND_BYTES or not await self.linked():
            raise ArmFailed(f"the replica is {behind:,} bytes behind, or follows no more")


@asynccontextmanager
async def replica(servers: Servers, primary: Redis) -> AsyncIterator[Replica]:
    """One that has everything, ended and removed afterwards."""
    port = primary.connection_pool.connection_kwargs["port"]
    server = ValkeyServer(servers.folder / "replica", config={"replicaof": f"127.0.0.1 {port}", "appendonly": "no"})
    try:
        await server.start_async()
        assert server.id is not None  # it has just started
        async with Redis.from_url(server.url) as client:
            made = Replica(server.url, server.id.pid, client, primary)
            await until(made.linked, "the replica to follow", timeout_seconds=IN_STEP_SECONDS)
            yield made
    finally:
        server.discard()
