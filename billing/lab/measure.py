"""Rates from positions: how many records a second went through, on average and in the best second. Pure."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple


class Throughput(NamedTuple):
    """Records a second over the window, and in its best second."""

    mean: int
    peak: int


class Meter:
    """A count that only grows, looked at now and then."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._totals: list[int] = []

    @property
    def total(self) -> int:
        """The last count seen, 0 before the first."""
        return self._totals[-1] if self._totals else 0

    def add(self, at_seconds: float, total: int) -> None:
        """The count at a moment; moments come in order. A lower count than before (a store that went away for a
        moment) changes nothing."""
        self._seconds.append(at_seconds)
        self._totals.append(max(total, self.total))

    def at(self, seconds: float) -> float:
        """The count at any moment, interpolated between looks."""
        after = bisect_right(self._seconds, seconds)
        if after == 0:
            return float(self._totals[0]) if self._totals else 0.0
        if after == len(self._seconds):
            return float(self._totals[-1])
        begin, end = self._seconds[after - 1], self._seconds[after]
        share = (seconds - begin) / (end - begin) if end > begin else 1.0
        return self._totals[after - 1] + share * (self._totals[after] - self._totals[after - 1])

    def rate(self, now_seconds: float, over_seconds: float = 2.0) -> int:
        """Records a second of late."""
        begin = max(now_seconds - over_seconds, self._seconds[0] if self._seconds else now_seconds)
        return round((self.at(now_seconds) - self.at(begin)) / max(now_seconds - begin, 0.001))

    def throughput(self, begin_seconds: float, end_seconds: float) -> Throughput:
        """Over a window; the best second is looked for at every half second."""
        mean = (self.at(end_seconds) - self.at(begin_seconds)) / max(end_seconds - begin_seconds, 0.001)
        starts = [begin_seconds + 0.5 * n for n in range(max(1, int(2 * (end_seconds - begin_seconds)) - 1))]
        peak = max(self.at(start + 1) - self.at(start) for start in starts)
        return Throughput(round(mean), round(peak))
