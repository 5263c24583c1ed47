"""The servers around a primary: its replicas, theirs (one per data centre, say), and the least stale of them. Pure.

How stale a replica is, is a matter of the log positions that it has: they are in the data, so they are right whatever a
replication offset counts from (S45)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from billing.balance.address import Host
from billing.balance.balances import PartitionView, Unknown


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One server as it describes itself. `follows` is None of a primary. `partitions` are read only when a failover
    may be wanted."""

    host: Host
    run_id: str = ""
    away: str = ""
    follows: Host | None = None
    link: str = ""
    offset: int = 0
    of_itself: bool = False
    partitions: Mapping[int, PartitionView | Unknown] = field(default_factory=dict)


def named(host: Host) -> str:
    """ "10.0.0.1:6379"."""
    return f"{host[0]}:{host[1]}"


def faults(nodes: Sequence[NodeSeen], above: Collection[Host] = ()) -> list[str]:
    """What is wrong with each replica, in words; nothing of those that are well. `above` are the servers that the one
    in question follows: one of them is a primary, and should be."""
    by_host = {node.host: node for node in nodes}
    found = []
    for node in nodes:
        name = named(node.host)
        if node.away:
            found.append(f"{name} does not answer: {node.away}")
        elif node.of_itself:
            found.append(f"{name} follows itself")
        elif node.follows is None and node.host in above:
            continue
        elif node.follows is None:
            found.append(f"{name} is a primary of its own")
        elif loop := _loop(node, by_host):
            found.append(f"{name} follows a circle: {' -> '.join(map(named, loop))}")
        elif node.link != "up":
            found.append(f"{name} follows {named(node.follows)}, link {node.link or '?'}")
    return found


def path(host: Host, nodes: Iterable[NodeSeen]) -> list[Host]:
    """From this server upwards, itself first, as far as it is known."""
    follows = {node.host: node.follows for node in nodes}
    way, above = [host], follows.get(host)
    while above is not None and above not in way:
        way.append(above)
        above = follows.get(above)
    return way


def candidates(nodes: Sequence[NodeSeen]) -> list[NodeSeen]:
    """Those that could take over, the least stale first: the most partitions that are what the ledger expects, then the
    furthest log positions, then the replication offset, then the shortest way up."""
    able = [node for node in nodes if not node.away]
    return sorted(able, key=lambda node: _staleness(node, nodes))


def furthest(
    nodes: Iterable[NodeSeen], before: Mapping[int, Mapping[str, int]]
) -> dict[int, dict[str, int]]:
    """The highest positions that any of them has, or that were seen `before`, by partition and topic."""
    highest = {partition: dict(positions) for partition, positions in before.items()}
    for node in nodes:
        for partition, view in node.partitions.items():
            if isinstance(view, PartitionView):
                top = highest.setdefault(partition, {})
                for topic, position in view.positions.items():
                    top[topic] = max(top.get(topic, 0), position.offset)
    return highest


def lag_records(node: NodeSeen, newest: Mapping[int, Mapping[str, int]]) -> int | None:
    """How many log records the server is behind `newest` (positions by partition and topic); None where it has not all
    of the partitions."""
    behind = 0
    for partition, positions in newest.items():
        view = node.partitions.get(partition)
        if not isinstance(view, PartitionView):
            return None
        behind += sum(max(0, offset - view.positions[topic].offset) for topic, offset in positions.items())
    return behind


def _staleness(node: NodeSeen, nodes: Sequence[NodeSeen]) -> tuple[int, int, int, int, Host]:
    known = [view for view in node.partitions.values() if isinstance(view, PartitionView)]
    reach = sum(position.offset for view in known for position in view.positions.values())
    return -len(known), -reach, -node.offset, len(path(node.host, nodes)), node.host


def _loop(node: NodeSeen, by_host: Mapping[Host, NodeSeen]) -> list[Host]:
    """The circle that its way up ends in, [] where it does not."""
    way: list[Host] = [node.host]
    at: NodeSeen | None = node
    while at is not None and at.follows is not None:
        if at.follows in way:
            return [*way[way.index(at.follows) :], at.follows]
        way.append(at.follows)
        at = by_host.get(at.follows)
    return []
