"""The balance store in a cluster: a plain client for each node, and a map of which has which partition.

redis-py's own cluster client is not used: it asks a server for the keys of every function call (COMMAND GETKEYS, with
all its data), follows TRYAGAIN and ASK sixteen times, and closes the connections of every node while one is away.
Here a partition depends on its own node alone, and a call goes out once: MOVED is followed (nothing ran), all else is
the caller's to decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from billing.balance.address import Host, StoreAddress
from billing.balance.asking import ask_all
from billing.balance.cluster_map import ClusterMap, NodeLine, merged, parse_nodes
from billing.balance.connections import node_client
from billing.balance.errors import may_lead_elsewhere
from billing.balance.sentinels import NoMajority

REFRESH_S = 0.1
"""At most so often is the map asked for anew."""

_MOVING = (AskError, TryAgainError, ClusterDownError)
"""The slot is being moved, or nobody has it: the map will change when that is done."""

Command = Callable[[Redis], Awaitable[Any]]


class Cluster:
    """`majority`: a map counts only when more than half of the primaries had a say in it (a proof's discovery, S49).

    Found at the first use, and anew after a call that failed in a way that a move of slots or a failover explains.
    """

    def __init__(
        self, address: StoreAddress, *, timeout_s: float, max_connections: int, majority: bool = False
    ) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._majority = majority
        self._nodes: dict[Host, Redis] = {}
        self._map: ClusterMap | None = None
        self._found_at_s = 0.0
        self._doubtful = True
        self._finding: asyncio.Task[ClusterMap] | None = None

    async def run(self, key: str, command: Command) -> Any:
        """The answer of `command`, given to the node that has `key`. Raises what the client raises."""
        node = await self.node_of(key)
        try:
            return await command(node)
        except MovedError as moved:  # refused before anything ran
            self._doubtful = True
            return await command(self.at((moved.host or _host_of(node), moved.port)))
        except BaseException as error:  # a cancelled call too: it may have waited for a node that is gone
            if not isinstance(error, ResponseError) or isinstance(error, _MOVING) or may_lead_elsewhere(error):
                self._doubtful = True
            raise

    async def node_of(self, key: str) -> Redis:
        """The client of the primary that has the key's slot. Raises ClusterDownError where nobody has."""
        slot = key_slot(key.encode())
        owner = (await self.topology()).owners[slot]
        if owner is None:
            raise ClusterDownError(f"CLUSTERDOWN no node has slot {slot}")
        return self.at(owner)

    async def primaries(self) -> dict[Host, Redis]:
        """Every primary, as found just now; those without slots too."""
        self._doubtful = True
        return {host: self.at(host) for host in (await self.topology()).primaries}

    def at(self, host: Host) -> Redis:
        """The client of one node; none is connected before its first call."""
        node = self._nodes.get(host)
        if node is None:
            url = self._address.node_url(host)
            node = node_client(url, timeout_s=self._timeout_s, max_connections=self._max_connections)
            self._nodes[host] = node
        return node

    async def topology(self) -> ClusterMap:
        """The map in use, found anew where it is in doubt."""
        known = self._map
        if known is not None and not (self._doubtful and time.monotonic() - self._found_at_s >= REFRESH_S):
            return known
        if self._finding is None:
            self._finding = asyncio.create_task(self._find(), name="cluster map")
            self._finding.add_done_callback(self._found)
        return await asyncio.shield(self._finding)

    async def aclose(self) -> None:
        """Close every connection; calls under way fail."""
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.gather(self._finding, return_exceptions=True)
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.aclose()

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _found(self, task: asyncio.Task[ClusterMap]) -> None:
        self._finding = None
        if not task.cancelled() and task.exception() is None:
            self._map, self._found_at_s, self._doubtful = task.result(), time.monotonic(), False

    async def _find(self) -> ClusterMap:
        """Ask the nodes that are known, then the primaries that they name."""
        hosts = dict.fromkeys(self._address.hosts)
        if self._map is not None:
            hosts.update(dict.fromkeys(self._map.primaries))
        views, errors = await ask_all(hosts, self._view)
        if not views:
            raise next(iter(errors.values()), TimeoutError("no node of the cluster answers"))
        found = merged(views)
        more = found.owning - set(hosts)
        if more:
            views = {**views, **(await ask_all(sorted(more), self._view))[0]}
            found = merged(views)
        if self._majority and not found.by_majority:
            raise NoMajority(f"{len(found.answered)} nodes of the cluster answer, its primaries {len(found.owning)}")
        return found

    async def _view(self, host: Host) -> tuple[NodeLine, ...]:
        reply: Any = await self.at(host).execute_command("CLUSTER", "NODES")  # type: ignore[no-untyped-call]  # redis-py
        text = reply.decode() if isinstance(reply, bytes) else str(reply)
        return parse_nodes(text, host, prefer_names=self._address.tls)


def _host_of(node: Redis) -> str:
    return str(node.connection_pool.connection_kwargs["host"])
