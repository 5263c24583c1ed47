"""One look at one node of the balance store: INFO, CONFIG GET, and the partitions through the balance reader."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from billing.balance.balances import PartitionView, Unknown
from billing.balance.calls import Functions
from billing.balance.client import UnsupportedServer, server_version
from billing.balance.errors import CALL_ERRORS
from billing.balance.keys import KeySpace
from billing.guard.config_file import DEFAULTS, compare_file
from billing.guard.itself import ADDRESSES, host_of, of_itself
from billing.guard.observation import FileView, Observation
from billing.ledger.incarnations import Identity
from billing.reconcile.health import expecting_reader
from billing.settings import Topics

LANES = 4
"""Connections that read partitions side by side: each partition is two round trips."""

RUNNING = (*DEFAULTS, *ADDRESSES)
RUNNING_WRITES = ("stop-writes-on-bgsave-error",)


async def look(
    node: Redis,
    keys: KeySpace,
    topics: Topics,
    expected: Identity | str,
    *,
    place: str = "",
    partitions: Collection[int] | None = None,
) -> Observation:
    """What `node` shows; `expected` is the ledger's identity, or why it is not known. Of a cluster `place` is its
    address and `partitions` are those that it should have. A server that does not answer is an observation; there is
    no deadline in here."""
    try:
        info, client, config, size = await _ask(node)
    except CALL_ERRORS as error:
        return Observation(away=why(error), place=place, ledger=expected if isinstance(expected, str) else "")
    server, unsupported = _version(info, cluster=bool(place))
    running = {name: str(value) for name, value in config.items()} if isinstance(config, Mapping) else None
    views: dict[int, PartitionView | Unknown] = {}
    if isinstance(expected, Identity) and not info.get("loading"):
        views = await read_partitions(Functions(node, keys), topics, expected, partitions)
    client = client if isinstance(client, Mapping) else {}
    return Observation(
        server=server,
        unsupported=unsupported,
        info=info,
        config=running,
        of_itself=info.get("role") == "slave" and await of_itself(info, client, running or {}),
        keys=size if isinstance(size, int) else None,
        ledger=expected if isinstance(expected, str) else "",
        timeline=expected.timeline if isinstance(expected, Identity) else "",
        incarnation=expected.incarnation if isinstance(expected, Identity) else None,
        partitions=views,
        place=place,
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


async def read_partitions(
    functions: Functions, topics: Topics, expected: Identity, partitions: Collection[int] | None = None
) -> dict[int, PartitionView | Unknown]:
    """These partitions (all, where none are given) as the server shows them, a replica too."""
    reader = expecting_reader(functions, topics, expected)
    wanted = range(expected.partitions) if partitions is None else sorted(partitions)
    found: dict[int, PartitionView | Unknown] = {}

    async def read(lane: int) -> None:
        for partition in wanted[lane::LANES]:
            found[partition] = await reader.read_partition(partition)

    async with asyncio.TaskGroup() as tasks:
        for lane in range(LANES):
            tasks.create_task(read(lane))
    return found


def _version(info: Mapping[str, Any], *, cluster: bool) -> tuple[str, str]:
    try:
        return server_version(info, cluster=cluster), ""
    except UnsupportedServer as error:
        return "", str(error)


def why(error: Exception) -> str:
    """The kind of error only: a message may name a user."""
    if isinstance(error, ResponseError):
        return f"it refuses INFO: {str(error).split(' ', 1)[0]}"
    kind = type(error).__name__
    return f"no answer: {kind}" if isinstance(error, RedisError | OSError) else kind


def _file(info: Mapping[str, Any], client: Mapping[str, Any], config: Mapping[str, str] | None) -> FileView:
    """The config file, where the server is on this machine: it saw both ends of our connection at one address."""
    if config is None:
        return FileView()
    if "addr" not in client:
        return FileView(unchecked="the config file (CLIENT INFO is not permitted)")
    if host_of(client["addr"]) != host_of(client.get("laddr")):
        return FileView(unchecked="the config file (the server is on another machine)")
    return compare_file(str(info.get("config_file", "")), config)
