"""Watching a process drain the log, from outside: positions in the store, CPU of every process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from billing.lab.bench.series import Series
from billing.lab.waiting import WaitedTooLong

LOOK_SECONDS = 0.1
STALL_SECONDS = 120.0

Cpu = Mapping[str, Callable[[], float]]


async def watch(
    count: Callable[[], Awaitable[float]],
    end: float,
    cpu: Cpu,
    check: Callable[[], None],
    *,
    look_seconds: float = LOOK_SECONDS,
) -> Series:
    """Look every `look_seconds` until `count` reaches `end`. `check` raises when a process has ended. Raises
    WaitedTooLong when nothing moves for two minutes."""
    series, moved_at, best = Series(), time.monotonic(), -1.0
    while True:
        at, now = time.monotonic(), await count()
        series.add(at, now, {name: read() for name, read in cpu.items()})
        if now >= end:
            return series
        if now > best:
            best, moved_at = now, at
        elif at - moved_at > STALL_SECONDS:
            raise WaitedTooLong(f"a drain stands still at {now:,.0f} of {end:,.0f}")
        check()
        await asyncio.sleep(max(0.0, look_seconds - (time.monotonic() - at)))
