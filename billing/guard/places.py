"""Where the guard looks: the primary, or each of a cluster's, found anew for every look; other servers by address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.crc import key_slot

from billing.balance.address import Host, parse_address
from billing.balance.client import Client, open_client
from billing.balance.cluster import Cluster
from billing.balance.connections import node_client
from billing.balance.keys import KeySpace
from billing.balance.sentinels import Sentinels
from billing.guard.chain import named


@dataclass(frozen=True, slots=True)
class Place:
    """One primary. `name` and `partitions` (those whose slots it has) are those of a cluster, "" and None otherwise;
    `others` are its replicas as sentinels and cluster know them."""

    node: Redis
    name: str = ""
    partitions: frozenset[int] | None = None
    others: tuple[Host, ...] = ()


class Target:
    """The balance store at an address: of Sentinel and Cluster a majority must name the primary (S49)."""

    def __init__(self, url: str, *, timeout_s: float, max_connections: int) -> None:
        self._address = parse_address(url)
        self._timeout_s = timeout_s
        self._max_connections = max_connections

    def open(self) -> Client:
        """A new client."""
        return open_client(
            self._address.url, timeout_s=self._timeout_s, max_connections=self._max_connections, majority=True
        )

    def at(self, host: Host) -> Redis:
        """A new client of one server, with the credentials of the store."""
        url = self._address.node_url(host)
        return node_client(url, timeout_s=self._timeout_s, max_connections=self._max_connections)

    async def places(self, client: Client, keys: KeySpace) -> list[Place]:
        """Where to look. Raises what the client raises while a cluster does not answer."""
        if isinstance(client, Cluster):
            return await cluster_places(client, keys)
        others = await Sentinels(self._address).replicas() if self._address.kind == "sentinel" else []
        return [Place(client, others=tuple(others))]


async def cluster_places(client: Cluster, keys: KeySpace) -> list[Place]:
    """Each primary that has partitions. Those of slots that nobody has are `lost_partitions`."""
    found = await client.topology()
    return [
        Place(client.at(host), named(host), partitions, found.replicas.get(host, ()))
        for host, partitions in sorted(_by_owner(found.owners, keys).items())
        if host is not None and partitions
    ]


async def lost_partitions(client: Client, keys: KeySpace) -> frozenset[int]:
    """Partitions whose slots nobody has."""
    if not isinstance(client, Cluster):
        return frozenset()
    return _by_owner((await client.topology()).owners, keys).get(None, frozenset())


def _by_owner(owners: tuple[Host | None, ...], keys: KeySpace) -> Mapping[Host | None, frozenset[int]]:
    found: dict[Host | None, set[int]] = {}
    for partition in range(keys.partitions):
        found.setdefault(owners[key_slot(keys.meta(partition).encode())], set()).add(partition)
    return {host: frozenset(partitions) for host, partitions in found.items()}
