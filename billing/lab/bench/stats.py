"""Medians and percentiles of what was measured. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` (0 to 1) of the sorted values do not exceed."""
    if not ordered:
        raise ValueError("no values")
    rank = ceil(share * len(ordered) - 1e-9)  # 0.99 * 100 is a little more than 99
    return ordered[max(1, rank) - 1]


class Spread(NamedTuple):
    """Of the same figure in several runs."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median (of an even number the mean of the middle two) with the lowest and highest."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return Spread(median, ordered[0], ordered[-1])


class Sighting(NamedTuple):
    """At a moment, everything below `position` was seen to be applied."""

    at: float
    position: int


class Burst(NamedTuple):
    """Records that were sent together: offsets from `first` on, one for each moment at which it was meant to be sent,
    whenever it then was (that is the correction for coordinated omission)."""

    first: int
    intended: Sequence[float]


def latencies(bursts: Sequence[Burst], sightings: Sequence[Sighting]) -> list[float]:
    """From each record's intended moment to the first look that saw it applied; looks in order. Raises ValueError for a
    record that no look saw."""
    positions = [sighting.position for sighting in sightings]
    found = []
    for burst in bursts:
        for number, intended in enumerate(burst.intended):
            look = bisect_right(positions, burst.first + number)
            if look == len(sightings):
                raise ValueError(f"offset {burst.first + number} was never seen applied")
            found.append(sightings[look].at - intended)
    return found


def histogram_percentile(buckets: Mapping[float, float], share: float) -> float:
    """From cumulative counts by upper bound (Prometheus), interpolated within the bucket; infinity where it lies beyond
    the last finite bound."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0
    if not total:
        raise ValueError("no observations")
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= share * total:
            if bound == float("inf"):
                return bound
            inside = buckets[bound] - below
            return low + (bound - low) * ((share * total - below) / inside if inside else 1.0)
        low, below = bound, buckets[bound]
    return float("inf")
