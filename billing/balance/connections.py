"""How this project connects to a server of the balance store: nothing repeated, nothing waited for without end, and a
cancellation never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def connection_options(*, timeout_s: float, max_connections: int) -> dict[str, Any]:
    """No call is repeated by the client (a write's outcome is decided by positions); a silent server is given up after
    `timeout_s`; a pool raises at `max_connections`, which answers Unavailable."""
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "max_connections": max_connections,
    }


def node_client(url: str, *, timeout_s: float, max_connections: int) -> Redis:
    """A client of one server."""
    client = Redis.from_url(url, **connection_options(timeout_s=timeout_s, max_connections=max_connections))
    pool = client.connection_pool  # the URL's scheme has chosen its kind of connection
    pool.connection_class = cancellable(pool.connection_class)
    return client


def cancellable(connection_class: type[Any]) -> type[Any]:
    """This kind of connection, without the client's trap (see `_Cancellable`)."""
    return type("Cancellable", (_Cancellable, connection_class), {})


def pooled(pool: ConnectionPool) -> Redis:
    """A client that closes its pool with itself."""
    client: Redis = Redis.from_pool(pool)
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
