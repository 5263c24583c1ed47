"""When each record of an open loop is meant to be sent, whatever happens. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Schedule(NamedTuple):
    """`per_second` records in all, the partitions in turns, from 0 s on."""

    per_second: float
    partitions: int

    def due_s(self, partition: int, number: int) -> float:
        """The moment of a record, by its number in its partition from 0."""
        return (number * self.partitions + partition) / self.per_second

    def count_by(self, partition: int, seconds: float) -> int:
        """How many of a partition's records are due by then."""
        return max(0, int((seconds * self.per_second - partition) // self.partitions) + 1)

    def ticks(self, partition: int, records: int, tick_s: float) -> Iterator[tuple[int, int]]:
        """Each tick (1, 2, … times `tick_s`) at which something has come due, and how many records are by then; the
        last is that of so many records."""
        tick, sent = 0, 0
        while sent < records:
            tick += 1
            due = min(records, self.count_by(partition, tick * tick_s))
            if due > sent:
                yield tick, due
                sent = due
