"""The connection to the balance store, and which servers are accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from redis.asyncio import Connection, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

Client: TypeAlias = "Redis | RedisCluster"
"""Plain, Sentinel or Cluster: each call of ours has its keys in one slot."""

TIMEOUT_S = 5.0
MINIMUM_REDIS = (7, 2)


def open_client(url: str, *, timeout_s: float = TIMEOUT_S, max_connections: int = 64) -> Redis:
    """A client that never repeats a call by itself (a write's outcome is decided by positions) and gives up on a
    silent server after `timeout_s`. Its pool raises at `max_connections`, which answers Unavailable."""
    client = Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        max_connections=max_connections,
    )
    pool = client.connection_pool  # the URL's scheme has chosen its kind of connection
    pool.connection_class = type("Cancellable", (_Cancellable, pool.connection_class), {})
    return client


class _Cancellable(Connection):
    """redis-py sends by asyncio.wait_for, which drops a cancellation that comes while it does (Python 3.11, with any
    command, often): a task that is cancelled once would go on for ever (S39)."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        task = asyncio.current_task()
        cancellations = 0 if task is None else task.cancelling()
        await super().send_packed_command(command, check_health)
        if task is not None and task.cancelling() > cancellations:
            await self.disconnect(nowait=True)  # the reply would come to whoever uses the connection next
            raise asyncio.CancelledError


class UnsupportedServer(Exception):
    """The server is too old or of another kind; the message names it."""


async def check_server(client: Client) -> str:
    """Name and version of the server, for example "valkey 9.1.2". Raises UnsupportedServer for a Redis before 7.2;
    any Valkey will do."""
    return server_version(await client.info("server"))


def server_version(info: Mapping[str, Any]) -> str:
    """The same from an answer to INFO."""
    if info.get("server_name") == "valkey":
        return f"valkey {info.get('valkey_version', '')}".strip()
    version = str(info.get("redis_version", "unknown"))
    parts = version.split(".")
    if not all(part.isdigit() for part in parts[:2]) or tuple(map(int, parts[:2])) < MINIMUM_REDIS:
        raise UnsupportedServer(f"the balance store is Redis {version}; Redis 7.2 or newer, or Valkey, is needed")
    return f"redis {version}"
