"""A replica of the benchmark's balance store, for those who only read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from billing.devstack.valkey import ValkeyServer
from billing.lab.bench.servers import Servers
from billing.lab.waiting import until
from billing.priority import set_nice

IN_STEP_SECONDS = 120.0  # a million accounts are sent first


@asynccontextmanager
async def replica(servers: Servers, primary: Redis, *, nice: int) -> AsyncIterator[str]:
    """The address of a second Valkey that follows the first and has all of it, with this nice value where the system
    lets it; ended and removed afterwards."""
    port = primary.connection_pool.connection_kwargs["port"]
    server = ValkeyServer(servers.folder / "replica", config={"replicaof": f"127.0.0.1 {port}", "appendonly": "no"})
    try:
        await server.start_async()
        async with Redis.from_url(server.url) as client:
            await until(lambda: _in_step(client), "the replica to follow", timeout_seconds=IN_STEP_SECONDS)
        if server.id is not None:
            set_nice(nice, server.id.pid)
        yield server.url
    finally:
        server.discard()


async def _in_step(client: Redis) -> bool:
    told = await client.info("replication")
    return bool(told["master_link_status"] == "up")
