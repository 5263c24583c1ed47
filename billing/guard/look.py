"""One look at one node of the balance store: INFO, CONFIG GET, and the partitions through the balance reader."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from billing.balance.balances import PartitionView, Unknown
from billing.balance.calls import Functions
from billing.balance.client import UnsupportedServer, server_version
from billing.balance.errors import CALL_ERRORS
from billing.balance.keys import KeySpace
from billing.guard.config_file import DEFAULTS, compare_file
from billing.guard.observation import FileView, Observation
from billing.ledger.incarnations import Identity
from billing.reconcile.health import expecting_reader
from billing.settings import Topics

LANES = 4
"""Connections that read partitions side by side: each partition is two round trips."""

RUNNING = (*DEFAULTS, "port", "tls-port", "bind", "replica-announce-ip", "replica-announce-port")
RUNNING_WRITES = ("stop-writes-on-bgsave-error",)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


async def look(node: Redis, keys: KeySpace, topics: Topics, expected: Identity | str) -> Observation:
    """What `node` shows; `expected` is the ledger's identity, or why it is not known. A server that does not answer
    is an observation; there is no deadline in here."""
    try:
        info, client, config, size = await _ask(node)
    except CALL_ERRORS as error:
        return Observation(away=_why(error), ledger=expected if isinstance(expected, str) else "")
    server, unsupported = _version(info)
    running = {name: str(value) for name, value in config.items()} if isinstance(config, Mapping) else None
    partitions: dict[int, PartitionView | Unknown] = {}
    if isinstance(expected, Identity) and not info.get("loading"):
        partitions = await _partitions(Functions(node, keys), topics, expected)
    client = client if isinstance(client, Mapping) else {}
    return Observation(
        server=server,
        unsupported=unsupported,
        info=info,
        config=running,
        of_itself=info.get("role") == "slave" and await _of_itself(info, client, running or {}),
        keys=size if isinstance(size, int) else None,
        ledger=expected if isinstance(expected, str) else "",
        timeline=expected.timeline if isinstance(expected, Identity) else "",
        incarnation=expected.incarnation if isinstance(expected, Identity) else None,
        partitions=partitions,
        file=_file(info, client, running),
    )


async def _ask(node: Redis) -> tuple[dict[str, Any], Any, Any, Any]:
    """INFO, CLIENT INFO, CONFIG GET and DBSIZE in one round trip; all but INFO may be an error instead of a value
    (not permitted, loading)."""
    async with node.pipeline(transaction=False) as pipe:
        pipe.info()
        pipe.client_info()
        pipe.config_get(*RUNNING, *RUNNING_WRITES)
        pipe.dbsize()
        info, client, config, size = await pipe.execute(raise_on_error=False)
    if isinstance(info, Exception):
        raise info
    return info, client, config, size


async def _partitions(functions: Functions, topics: Topics, expected: Identity) -> dict[int, PartitionView | Unknown]:
    reader = expecting_reader(functions, topics, expected)
    found: dict[int, PartitionView | Unknown] = {}

    async def read(lane: int) -> None:
        for partition in range(lane, expected.partitions, LANES):
            found[partition] = await reader.read_partition(partition)

    async with asyncio.TaskGroup() as tasks:
        for lane in range(LANES):
            tasks.create_task(read(lane))
    return found


def _version(info: Mapping[str, Any]) -> tuple[str, str]:
    try:
        return server_version(info), ""
    except UnsupportedServer as error:
        return "", str(error)


def _why(error: Exception) -> str:
    """The kind of error only: a message may name a user."""
    if isinstance(error, ResponseError):
        return f"it refuses INFO: {str(error).split(' ', 1)[0]}"
    kind = type(error).__name__
    return f"no answer: {kind}" if isinstance(error, RedisError | OSError) else kind


# --- is its primary itself? -----------------------------------------------------------------------------------------


async def _of_itself(info: Mapping[str, Any], client: Mapping[str, Any], config: Mapping[str, str]) -> bool:
    """Whether the primary's address is one of the server's own: same port, and a host that is loopback, an address
    it listens on or announces, or the one at which it received this connection."""
    ports = {str(info.get("tcp_port", "")), *(config.get(name, "") for name in RUNNING if name.endswith("port"))}
    if str(info.get("master_port")) not in ports - {"", "0"}:
        return False
    own = {*_LOOPBACK, _host(client.get("laddr")), config.get("replica-announce-ip", "")}
    own.update(address.lstrip("-") for address in config.get("bind", "").split())
    host = str(info.get("master_host", ""))
    return bool(({host} | await _resolved(host)) & (own - {"", "*", "0.0.0.0", "::*"}))


async def _resolved(host: str) -> set[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {str(address[0]) for *_, address in found}


def _host(address: object) -> str:
    """The host of "host:port", of "[v6]:port" and of v6 as the server prints it."""
    return str(address or "").rpartition(":")[0].strip("[]")


def _file(info: Mapping[str, Any], client: Mapping[str, Any], config: Mapping[str, str] | None) -> FileView:
    """The config file, where the server is on this machine: it saw both ends of our connection at one address."""
    if config is None:
        return FileView()
    if "addr" not in client:
        return FileView(unchecked="the config file (CLIENT INFO is not permitted)")
    if _host(client["addr"]) != _host(client.get("laddr")):
        return FileView(unchecked="the config file (the server is on another machine)")
    return compare_file(str(info.get("config_file", "")), config)
