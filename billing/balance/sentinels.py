"""The primary by Sentinel: all sentinels are asked at once, and the newest configuration counts.

redis-py's own asks one after the other and takes the first answer, so the sentinel on the isolated side of a split
could name the old primary (S49)."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from billing.balance.address import Host, StoreAddress
from billing.balance.asking import ASK_S, ask_all
from billing.balance.connections import cancellable, connection_options, node_client
from billing.balance.errors import may_lead_elsewhere


class NotPrimary(RedisConnectionError):
    """The server that the sentinels named says that it is a replica."""


class NoMajority(RedisConnectionError):
    """Too few of those asked agree on where the primary is."""


class Sentinels:
    """Where the primary of the address's service is. `majority`: more than half of the sentinels must name the same
    server, as they would for a failover; without it the newest configuration seen counts."""

    def __init__(self, address: StoreAddress, *, majority: bool = False) -> None:
        self._address = address
        self._majority = majority
        self._asking: asyncio.Task[Host] | None = None

    async def discover_master(self, _service: str) -> Host:
        """The name by which redis-py's pool asks. Raises MasterNotFoundError, NoMajority."""
        if self._asking is None:  # connections that are made at the same time ask once
            self._asking = asyncio.create_task(self._ask(), name="sentinels")
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def _asked(self, task: asyncio.Task[Host]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # seen, though everybody who waited for it may be gone

    async def _ask(self) -> Host:
        answers, errors = await ask_all(self._address.hosts, self._state)
        if not answers:
            why = ", ".join(sorted({type(error).__name__ for error in errors.values()})) or "no answer in time"
            raise MasterNotFoundError(f"no sentinel names the primary of {self._address.service!r}: {why}")
        epoch, primary = max((int(state["config-epoch"]), _host(state)) for state in answers.values())
        agreeing = sum(_host(state) == primary for state in answers.values())
        if self._majority and agreeing * 2 <= len(self._address.hosts):
            raise NoMajority(
                f"{agreeing} of {len(self._address.hosts)} sentinels name {primary[0]}:{primary[1]} (epoch {epoch})"
            )
        return primary

    async def _state(self, sentinel: Host) -> dict[str, str]:
        return _pairs(await self._command(sentinel, "MASTER"))

    async def replicas(self) -> list[Host]:
        """Every replica that a sentinel knows, reachable or not; for the guard. Empty where none answers."""

        async def known(sentinel: Host) -> list[Host]:
            return [_host(_pairs(replica)) for replica in await self._command(sentinel, "REPLICAS")]

        answers, _ = await ask_all(self._address.hosts, known)
        return sorted({host for answer in answers.values() for host in answer})

    async def _command(self, sentinel: Host, name: str) -> Any:
        client = node_client(self._address.sentinel_url(sentinel), timeout_s=ASK_S, max_connections=1)
        try:
            reply: Any = await client.execute_command("SENTINEL", name, self._address.service)  # type: ignore[no-untyped-call]  # redis-py
        finally:
            await client.aclose()
        return reply


def _pairs(reply: Any) -> dict[str, str]:
    """Names and values, which come as a flat list or as a map, by protocol."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}


def _host(state: dict[str, str]) -> Host:
    return state["ip"], int(state["port"])


def sentinel_pool(address: StoreAddress, *, timeout_s: float, max_connections: int, majority: bool) -> Any:
    """A pool of connections to the primary, found anew for each connection."""
    given = parse_url(address.node_url(address.hosts[0]))
    options = {name: value for name, value in given.items() if name not in ("host", "port", "connection_class")}
    kind = _CheckedSSL if address.tls else _Checked
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]  # redis-py
        address.service,
        Sentinels(address, majority=majority),
        connection_class=cancellable(kind),
        **options,
        **connection_options(timeout_s=timeout_s, max_connections=max_connections),
    )


class _Checked(SentinelManagedConnection):
    """Asks the server whether it is a primary: a sentinel may not know yet that it is none any more. Left, as redis-py
    leaves one that answers READONLY, where it answers NOREPLICAS."""

    async def connect_to(self, address: Host) -> None:
        await super().connect_to(address)  # type: ignore[no-untyped-call]  # redis-py
        try:
            await self.send_command("ROLE")
            role = (await self.read_response())[0]
        except BaseException:
            await self.disconnect(nowait=True)
            raise
        if role not in (b"master", "master"):
            await self.disconnect()
            raise NotPrimary(f"the sentinels name a server whose role is {role!r}")

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if may_lead_elsewhere(error):
                await self.disconnect()
            raise


class _CheckedSSL(_Checked, SentinelManagedSSLConnection, SSLConnection):
    """The same over TLS."""
