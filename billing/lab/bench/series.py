"""A drain as a series of looks: how far it was, and how much CPU each process had used. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

STEADY = (0.05, 0.95)
"""The part of the records that is measured: starting up, and partitions that run out one after the other, are not."""


class Look(NamedTuple):
    """At a moment (seconds of any clock): records applied so far, CPU seconds so far by process."""

    at: float
    total: float
    cpu: Mapping[str, float]


class Pace(NamedTuple):
    """Of a drain's steady part. `cpu_micros` is per record, by process; `cores` how much of a core each used."""

    per_second: float
    seconds: float
    records: int
    cpu_micros: Mapping[str, float]

    @staticmethod
    def joined(paces: Sequence[Pace]) -> Pace:
        """Several drains of the same kind as one."""
        records, seconds = sum(p.records for p in paces), sum(p.seconds for p in paces)
        names = paces[0].cpu_micros
        cpu = {name: sum(p.cpu_micros[name] * p.records for p in paces) / records for name in names}
        return Pace(records / seconds, seconds, records, cpu)

    @property
    def cores(self) -> dict[str, float]:
        return {name: micros * self.per_second / 1e6 for name, micros in self.cpu_micros.items()}


@dataclass
class Series:
    """Looks in order; `total` only grows."""

    looks: list[Look] = field(default_factory=list)

    def add(self, at: float, count: float, cpu: Mapping[str, float] | None = None) -> None:
        self.looks.append(Look(at, count, dict(cpu or {})))

    def pace(self, begin: float, end: float, steady: tuple[float, float] = STEADY) -> Pace:
        """Between the moments at which the count had grown by these shares of the way from `begin` to `end`. Raises
        ValueError when it did not get there, or in no time."""
        first = self._when(begin + steady[0] * (end - begin))
        last = self._when(begin + steady[1] * (end - begin))
        seconds, records = last.at - first.at, last.total - first.total
        if seconds <= 0 or records <= 0:
            raise ValueError("too few looks: the drain was over at once; fill in more records")
        cpu = {name: 1e6 * (last.cpu[name] - first.cpu[name]) / records for name in first.cpu}
        return Pace(records / seconds, seconds, round(records), cpu)

    def _when(self, count: float) -> Look:
        """The moment of a count, interpolated between looks."""
        for before, after in zip(self.looks, self.looks[1:], strict=False):
            if before.total <= count <= after.total and after.total > before.total:
                share = (count - before.total) / (after.total - before.total)
                cpu = {name: _between(before.cpu[name], after.cpu[name], share) for name in before.cpu}
                return Look(_between(before.at, after.at, share), count, cpu)
        raise ValueError(f"the drain never reached {count:,.0f}: {self.looks[-1:]}")


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)
