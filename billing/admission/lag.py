"""How far a balance is behind the log. Pure.

A balance carries the log positions that it is true of. The log's ends are read about once a second, so a request costs
no more for it: what was in the log when its ends were last read, and is not in the balance, is its lag. The ends that
were read before say how old the balance is: all that was in the log at that time is in it.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from billing.balance.balances import BalanceAnswer, Known, Unknown
from billing.stream.record import Position
from schemas.admission import Lag

Pair = tuple[str, int]


class _Seen(NamedTuple):
    at_s: float
    ends: Mapping[Pair, int]


class LogEnds:
    """The ends of the logs over the last `limit_ms`, by the monotonic clock."""

    def __init__(self, limit_ms: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_ms = limit_ms
        self._clock = clock
        self._seen: list[_Seen] = []  # oldest first; ends only grow

    def saw(self, ends: Mapping[Pair, int], *, ago_s: float = 0.0) -> None:
        """The ends of every (topic, partition) `ago_s` ago, which is later than those before."""
        if self._seen and any(end < self._seen[-1].ends[pair] for pair, end in ends.items()):
            self._seen.clear()  # the log was cut, or is another one: what was seen of it says nothing
        now_s = self._clock()
        self._seen.append(_Seen(now_s - ago_s, dict(ends)))
        first = 0
        while now_s - self._seen[first].at_s > self.limit_ms / 1000 and first < len(self._seen) - 1:
            first += 1
        del self._seen[:first]

    def lag(self, partition: int, positions: Mapping[str, Position]) -> Lag | None:
        """The lag of a balance of `partition` that is true of `positions`; None before the ends were read."""
        if not self._seen:
            return None
        newest, records, index = self._seen[-1], 0, len(self._seen)
        for topic, position in positions.items():
            pair = (topic, partition)
            missing = newest.ends[pair] - position.offset
            if missing > 0:
                records += missing
                index = bisect_right(self._seen, position.offset, hi=index, key=partial(_end_of, pair))
        if index == 0:
            return Lag(records=records, age_ms=None)
        return Lag(records=records, age_ms=max(0, round((self._clock() - self._seen[index - 1].at_s) * 1000)))


def _end_of(pair: Pair, seen: _Seen) -> int:
    return seen.ends[pair]


def believed(balance: BalanceAnswer, lag: Lag | None, limit_ms: int) -> BalanceAnswer:
    """`balance`, or Unknown("behind") where it is further behind than the limit, or nobody knows how far."""
    return (behind(lag, limit_ms) or balance) if isinstance(balance, Known) else balance


def behind(lag: Lag | None, limit_ms: int) -> Unknown | None:
    """What a balance with this lag counts as; None where it counts."""
    if lag is None:
        return Unknown("behind", "the log has not been read yet")
    if lag.age_ms is not None and lag.age_ms <= limit_ms:
        return None
    if lag.records:
        return Unknown("behind", f"{lag.records} records, more than {limit_ms} ms old, are not in it yet")
    return Unknown("behind", f"the log was last read more than {limit_ms} ms ago")
