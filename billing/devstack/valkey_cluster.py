"""A local cluster of Valkey servers: primaries that share the slots, and replicas of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.devstack.errors import DevStackError
from billing.devstack.identity import POLL_S
from billing.devstack.ports import LOOPBACK
from billing.devstack.valkey import ValkeyServer

SLOTS = 16384
LIMIT_S = 30.0
NODE_TIMEOUT_MS = 1500
"""How long a node is silent before the others take it for failed; a failover begins then."""


class ClusterNode(ValkeyServer):
    """One server of a cluster, with a port for its bus."""

    @property
    def ports_wanted(self) -> int:
        return 2

    def _own(self, data: Path) -> dict[str, str]:
        return {
            **super()._own(data),
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-port": str(self.ports[1]),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-require-full-coverage": "no",  # the slots of other nodes stay usable while one is away
            "cluster-allow-replica-migration": "no",
            "repl-diskless-sync-delay": "0",
        }


class ValkeyCluster:
    """`primaries` have equal shares of the slots; `replicas[i]` follow `primaries[i]`. Built on running nodes."""

    def __init__(self, primaries: Sequence[ClusterNode], replicas: Sequence[Sequence[ClusterNode]] = ()) -> None:
        self.primaries = list(primaries)
        self.replicas = [list(each) for each in replicas] or [[] for _ in primaries]

    @property
    def nodes(self) -> list[ClusterNode]:
        """Primaries first."""
        return [*self.primaries, *(node for each in self.replicas for node in each)]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{LOOPBACK}:{node.port}' for node in self.nodes)}/"

    async def build(self) -> None:
        """Share the slots, introduce the nodes to each other, and wait until all agree."""
        share = SLOTS // len(self.primaries) + 1
        for number, node in enumerate(self.primaries):
            await command(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first = number * share
            await command(node, "CLUSTER", "ADDSLOTSRANGE", first, min(first + share, SLOTS) - 1)
        seed = self.primaries[0]
        for node in self.nodes[1:]:
            await command(seed, "CLUSTER", "MEET", LOOPBACK, node.port, node.ports[1])
        await self._until(self._all_known)
        for primary, replicas in zip(self.primaries, self.replicas, strict=True):
            for replica in replicas:
                await command(replica, "CLUSTER", "REPLICATE", await self.id(primary))
        await self._until(self._replicas_follow)

    async def id(self, node: ClusterNode) -> str:
        """The node's name in the cluster."""
        return (await command(node, "CLUSTER", "MYID")).decode()  # type: ignore[no-any-return]

    async def owner(self, slot: int) -> ClusterNode:
        """The running primary that has the slot."""
        for node in self.nodes:
            if not node.is_running:
                continue
            for first, last, owner, *_ in await command(node, "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(each for each in self.nodes if each.port == owner[1])
        raise DevStackError(f"no node has slot {slot}")

    async def begin_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """The slot is being moved: from now on its owner answers for the keys that it still has."""
        await command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", await self.id(source))
        await command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", await self.id(target))

    async def move_keys(self, slot: int, source: ClusterNode, target: ClusterNode, count: int) -> int:
        """Move at most `count` keys of the slot; how many were moved."""
        keys = await command(source, "CLUSTER", "GETKEYSINSLOT", slot, count)
        if keys:
            await command(source, "MIGRATE", LOOPBACK, target.port, "", 0, 20_000, "KEYS", *keys)
        return len(keys)

    async def end_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """The slot is the target's: said to it first, then to the source, then to the others."""
        owner = await self.id(target)
        others = [node for node in self.primaries if node not in (source, target) and node.is_running]
        for node in (target, source, *others):
            await command(node, "CLUSTER", "SETSLOT", slot, "NODE", owner)

    async def _all_known(self) -> bool:
        for node in self.nodes:
            info = dict(line.split(":") for line in (await command(node, "CLUSTER", "INFO")).decode().split())
            if info["cluster_state"] != "ok" or int(info["cluster_known_nodes"]) != len(self.nodes):
                return False
        return True

    async def _replicas_follow(self) -> bool:
        for primary, replicas in zip(self.primaries, self.replicas, strict=True):
            owner = await self.id(primary)
            for replica in replicas:
                role = await command(replica, "ROLE")
                if role[0] != b"slave" or role[3] != b"connected":
                    return False
            for node in self.nodes:  # everybody has heard of it
                said = (await command(node, "CLUSTER", "NODES")).decode()
                if sum(f" slave {owner} " in line or f",slave {owner} " in line for line in said.splitlines()) != len(
                    replicas
                ):
                    return False
        return True

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not await condition():  # noqa: ASYNC110 - a server has no event to wait for
                await asyncio.sleep(POLL_S)


async def command(server: ValkeyServer, *words: str | int | bytes) -> Any:
    """One command on one server, over a connection of its own. Raises DevStackError with what the server said."""
    client = Redis(host=LOOPBACK, port=server.port, socket_timeout=LIMIT_S, socket_connect_timeout=5)
    try:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py
    except RedisError as error:
        raise DevStackError(f"{server.name} {server.port}: {' '.join(map(str, words[:2]))}: {error}") from error
    finally:
        await client.aclose()
