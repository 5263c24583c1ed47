"""Which node of a cluster has which slots, from what several nodes say of it (CLUSTER NODES). Pure.

Where they disagree the claim of the higher configuration epoch counts, which is the cluster's own rule: an isolated old
primary still names itself, with its old epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from billing.balance.address import Host

SLOTS = 16384


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node as one of them describes it. `ranges`: slots, both ends included."""

    id: str
    host: Host
    flags: frozenset[str]
    primary: str  # id of the node that it follows, "" of a primary
    epoch: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def reachable_primary(self) -> bool:
        return "master" in self.flags and not self.flags & {"fail", "handshake", "noaddr"}


@dataclass(frozen=True, slots=True)
class ClusterMap:
    """`owners`: the primary of each slot, None where nobody claims it. `primaries` includes those without slots, and
    `replicas` is by primary; `answered` are the nodes whose view is in here."""

    owners: tuple[Host | None, ...]
    primaries: tuple[Host, ...]
    replicas: Mapping[Host, tuple[Host, ...]]
    answered: frozenset[Host]

    @property
    def owning(self) -> frozenset[Host]:
        """Primaries that have slots: those that vote."""
        return frozenset(owner for owner in self.owners if owner is not None)

    @property
    def by_majority(self) -> bool:
        """Whether more than half of the voting primaries were asked and answered."""
        owning = self.owning
        return len(owning & self.answered) * 2 > len(owning)


def parse_nodes(text: str, asked: Host, *, prefer_names: bool = False) -> tuple[NodeLine, ...]:
    """A node's answer to CLUSTER NODES. One that does not know its own address has the one at which it was asked;
    `prefer_names` takes host names where they are announced (TLS checks names)."""
    return tuple(_line(line.split(" "), asked, prefer_names) for line in text.splitlines() if line.strip())


def merged(views: Mapping[Host, Iterable[NodeLine]]) -> ClusterMap:
    """One map from the views of the nodes that were asked."""
    newest: dict[str, NodeLine] = {}
    for host, view in views.items():
        for line in view:
            own = "myself" in line.flags and line.host == host
            if line.id not in newest or line.epoch > newest[line.id].epoch or own:
                newest[line.id] = line
    claims = sorted(
        (line.epoch, line.id, claimed)
        for view in views.values()
        for line in view
        if "master" in line.flags
        for claimed in line.ranges
    )
    ids: list[str | None] = [None] * SLOTS
    for _, node, (first, last) in claims:
        ids[first : last + 1] = [node] * (last + 1 - first)
    owning = {node for node in ids if node is not None}
    hosts = {node: line.host for node, line in newest.items()}
    primaries = owning | {node for node, line in newest.items() if line.reachable_primary}
    return ClusterMap(
        owners=tuple(None if node is None else hosts[node] for node in ids),
        primaries=tuple(sorted(hosts[node] for node in primaries)),
        replicas={
            hosts[primary]: tuple(
                sorted(line.host for line in newest.values() if line.primary == primary and line.id not in owning)
            )
            for primary in primaries
        },
        answered=frozenset(line.host for view in views.values() for line in view if "myself" in line.flags),
    )


def _line(words: list[str], asked: Host, prefer_names: bool) -> NodeLine:
    node, address, flags, primary, _ping, _pong, epoch, _link, *slots = words
    endpoint, _, rest = address.partition("@")
    name = rest.split(",")[1] if "," in rest else ""
    host, _, port = endpoint.rpartition(":")
    if "myself" in flags and not host:
        host = asked[0]
    return NodeLine(
        id=node,
        host=((name if prefer_names and name else host), int(port or 0)),
        flags=frozenset(flags.split(",")),
        primary="" if primary == "-" else primary,
        epoch=int(epoch),
        ranges=tuple(_range(text) for text in slots if not text.startswith("[")),  # [ ]: slots under way
    )


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)
