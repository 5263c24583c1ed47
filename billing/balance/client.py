"""The client of the balance store, wherever it is (one server, Sentinel, Cluster), and which servers are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from billing.balance.address import parse_address
from billing.balance.cluster import Cluster
from billing.balance.connections import node_client, pooled
from billing.balance.sentinels import sentinel_pool

Client: TypeAlias = "Redis | Cluster"
"""One server, or the primary that the sentinels name; or the nodes of a cluster. Each call of ours has its keys in one
slot."""

TIMEOUT_S = 5.0
MINIMUM_REDIS = (7, 2)


def open_client(
    url: str, *, timeout_s: float = TIMEOUT_S, max_connections: int = 64, majority: bool = False
) -> Client:
    """A client that never repeats a call by itself (a write's outcome is decided by positions) and gives up on a
    silent server after `timeout_s`. Its pool raises at `max_connections` (of each node), which answers Unavailable.

    `majority`: more than half of the sentinels, or of the cluster's primaries, must agree on where the primary is.
    Raises BadAddress. Connects at the first call.
    """
    address = parse_address(url)
    if address.kind == "cluster":
        return Cluster(address, timeout_s=timeout_s, max_connections=max_connections, majority=majority)
    if address.kind == "sentinel":
        return pooled(
            sentinel_pool(address, timeout_s=timeout_s, max_connections=max_connections, majority=majority)
        )
    return node_client(url, timeout_s=timeout_s, max_connections=max_connections)


async def node_of(client: Client, key: str) -> Redis:
    """The client of the server that has `key`; its errors are the caller's. Raises what the client raises."""
    return await client.node_of(key) if isinstance(client, Cluster) else client


async def primaries(client: Client) -> dict[str, Redis]:
    """Every server that is written to, by "host:port" ("" where there is but one). Raises what the client raises."""
    if not isinstance(client, Cluster):
        return {"": client}
    return {f"{host}:{port}": node for (host, port), node in (await client.primaries()).items()}


class UnsupportedServer(Exception):
    """The server is too old or of another kind; the message names it."""


async def check_server(client: Client) -> str:
    """Name and version of the server, for example "valkey 9.1.2"; of a cluster those of every primary.

    Raises UnsupportedServer for a Redis before 7.2 (any Valkey will do), for a server of a cluster that is not
    addressed as one, and the other way round.
    """
    try:
        nodes = await primaries(client)
    except ResponseError as error:
        if "cluster support disabled" in str(error):
            raise UnsupportedServer("the balance store is no cluster: use redis:// for its address") from error
        raise
    cluster = isinstance(client, Cluster)
    versions = {server_version(await node.info("server"), cluster=cluster) for node in nodes.values()}
    shown = ", ".join(sorted(versions))
    return f"{shown}, a cluster of {len(nodes)} primaries" if cluster else shown


def server_version(info: Mapping[str, Any], *, cluster: bool = False) -> str:
    """The same from one server's answer to INFO."""
    mode = info.get("server_mode", info.get("redis_mode"))
    if mode == "sentinel":
        raise UnsupportedServer("this is a sentinel: use redis+sentinel://host:26379/service for its address")
    if mode == "cluster" and not cluster:
        raise UnsupportedServer("the balance store is a cluster: use redis+cluster://host:port,… for its address")
    if info.get("server_name") == "valkey":
        return f"valkey {info.get('valkey_version', '')}".strip()
    version = str(info.get("redis_version", "unknown"))
    parts = version.split(".")
    if not all(part.isdigit() for part in parts[:2]) or tuple(map(int, parts[:2])) < MINIMUM_REDIS:
        raise UnsupportedServer(f"the balance store is Redis {version}; Redis 7.2 or newer, or Valkey, is needed")
    return f"redis {version}"
