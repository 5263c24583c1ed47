"""Looking at the servers around a primary: down to its replicas and theirs, up where the address leads to a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from redis.asyncio import Redis

from billing.balance.address import Host
from billing.balance.balances import PartitionView, Unknown
from billing.balance.errors import CALL_ERRORS
from billing.guard.chain import NodeSeen
from billing.guard.itself import ADDRESSES, of_itself

NODE_S = 0.5
"""How long one of them may take to answer, and once more for its partitions."""
CHAIN_S = 1.5
MOST_NODES = 32
MOST_HOPS = 8

Connect = Callable[[Host], Redis]
ReadPartitions = Callable[[Redis], Awaitable[Mapping[int, PartitionView | Unknown]]]


@dataclass
class ChainLook:
    """One look. `connect` makes a client of one server; `read` reads its partitions, where a failover may be wanted.

    Whatever does not answer within `CHAIN_S` of the look's begin is away."""

    connect: Connect
    read: ReadPartitions | None = None
    seen: dict[Host, NodeSeen] = field(default_factory=dict)

    async def run(self, info: Mapping[str, Any], others: Iterable[Host]) -> tuple[NodeSeen, ...]:
        """What is around the server with this INFO: what it lists, what it follows, and `others` that are known of."""
        around = [*others, *_next_to(info)]
        with suppress(TimeoutError):
            async with asyncio.timeout(CHAIN_S):
                for _ in range(MOST_HOPS):
                    around = await self._level(around)
        itself = info.get("run_id")
        return tuple(node for _, node in sorted(self.seen.items()) if node.away or node.run_id != itself)

    async def _level(self, hosts: Iterable[Host]) -> list[Host]:
        """Look at those that were not looked at yet; the servers next to them."""
        fresh = [host for host in dict.fromkeys(hosts) if host not in self.seen][: MOST_NODES - len(self.seen)]
        self.seen.update((host, NodeSeen(host, away="no answer in time")) for host in fresh)
        infos = await asyncio.gather(*(self._one(host) for host in fresh))
        return [host for info in infos for host in _next_to(info)]

    async def _one(self, host: Host) -> Mapping[str, Any]:
        """The server's INFO; empty where it does not answer."""
        client = self.connect(host)
        try:
            async with asyncio.timeout(NODE_S):
                info, client_info, config = await _ask(client)
                own = follows(info) is not None and await of_itself(info, client_info, config)
            seen = _node(host, info, own)
            self.seen[host] = seen
            if self.read is not None:
                with suppress(*CALL_ERRORS):
                    async with asyncio.timeout(NODE_S):
                        self.seen[host] = replace(seen, partitions=await self.read(client))
        except CALL_ERRORS as error:
            self.seen[host] = NodeSeen(host, away=type(error).__name__)
            return {}
        finally:
            await client.aclose()
        return info


def _node(host: Host, info: Mapping[str, Any], own: bool) -> NodeSeen:
    return NodeSeen(
        host,
        run_id=str(info.get("run_id", "")),
        follows=follows(info),
        link=str(info.get("master_link_status", "")),
        offset=int(info.get("slave_repl_offset", info.get("master_repl_offset", 0))),
        of_itself=own,
    )


def listed(info: Mapping[str, Any]) -> list[Host]:
    """The replicas that a server lists in INFO, by the addresses that they announce."""
    found = (value for name, value in info.items() if name.startswith("slave") and name[5:].isdigit())
    return [(str(each["ip"]), int(each["port"])) for each in found if isinstance(each, Mapping)]


def follows(info: Mapping[str, Any]) -> Host | None:
    """The server that it is a replica of, None of a primary."""
    if info.get("role") != "slave":
        return None
    return str(info.get("master_host")), int(info.get("master_port", 0))


def _next_to(info: Mapping[str, Any]) -> list[Host]:
    above = follows(info)
    return listed(info) if above is None else [*listed(info), above]


async def _ask(client: Redis) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, str]]:
    async with client.pipeline(transaction=False) as pipe:
        pipe.info()
        pipe.client_info()
        pipe.config_get(*ADDRESSES)
        info, client_info, config = await pipe.execute(raise_on_error=False)
    if isinstance(info, Exception):
        raise info
    plain = {name: str(value) for name, value in config.items()} if isinstance(config, Mapping) else {}
    return info, client_info if isinstance(client_info, Mapping) else {}, plain
