"""What the guard remembers from one look to the next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from billing.balance.address import Host
from billing.balance.balances import PartitionView, Unknown
from billing.guard.observation import Observation

FORGET_LOOKS = 60
"""How many healthy looks a replica that does not answer is remembered for."""

CALM_LOOKS = 10
"""How many healthy looks in a row end the warning about another run id."""


@dataclass(frozen=True, slots=True)
class Memory:
    """`positions`: the highest offsets seen, by (incarnation, partition) and topic. They only grow within an
    incarnation, so a store behind them is an older state of it: a lagging replica, an old primary, a cut AOF.
    `replicas`: those seen before, with the number of looks since they answered; who they are is wanted most when their
    primary, which lists them, is gone."""

    run_id: str = ""
    changed_from: str = ""
    calm_looks: int = 0
    positions: Mapping[tuple[str, int], Mapping[str, int]] = field(default_factory=dict)
    replicas: Mapping[Host, int] = field(default_factory=dict)

    def noting_run_id(self, run_id: str) -> Memory:
        """This look's run id; "" (not seen) changes nothing."""
        if run_id in ("", self.run_id):
            return self
        return replace(self, run_id=run_id, changed_from=self.run_id, calm_looks=0)

    def behind(self, partitions: Mapping[int, PartitionView | Unknown]) -> list[int]:
        """Partitions that show less than was seen before."""
        found = []
        for partition, view in sorted(partitions.items()):
            if isinstance(view, PartitionView):
                highest = self.positions.get((view.incarnation, partition), {})
                if any(position.offset < highest.get(topic, 0) for topic, position in view.positions.items()):
                    found.append(partition)
        return found

    def after(self, seen: Observation, *, healthy: bool) -> Memory:
        """What to remember once the look is judged."""
        positions = dict(self.positions)
        for partition, view in seen.partitions.items():
            if isinstance(view, PartitionView):
                highest = positions.get((view.incarnation, partition), {})
                positions = {key: kept for key, kept in positions.items() if key[1] != partition}
                positions[view.incarnation, partition] = {
                    topic: max(position.offset, highest.get(topic, 0)) for topic, position in view.positions.items()
                }
        calm = self.calm_looks + 1 if healthy else 0
        changed_from = "" if calm >= CALM_LOOKS else self.changed_from
        return replace(
            self,
            positions=positions,
            calm_looks=calm,
            changed_from=changed_from,
            replicas=self._replicas(seen, healthy=healthy),
        )

    def _replicas(self, seen: Observation, *, healthy: bool) -> dict[Host, int]:
        looks = {node.host: self.replicas.get(node.host, 0) + healthy if node.away else 0 for node in seen.around}
        return {host: count for host, count in {**self.replicas, **looks}.items() if count < FORGET_LOOKS}
