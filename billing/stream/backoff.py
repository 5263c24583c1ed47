"""Waiting between tries, and the clock that waits are measured by (tests inject their own)."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds; verdicts never depend on it, only when to look again."""

    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The real one."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class Backoff:
    """Doubling delays from `first_seconds` to at most `limit_seconds`, each shortened by up to `jitter` of itself
    at random, so that several waiting processes do not come back together."""

    first_seconds: float = 0.05
    limit_seconds: float = 2.0
    jitter: float = 0.3
    attempt: int = 0

    def next_seconds(self) -> float:
        """The next delay."""
        delay = min(self.limit_seconds, self.first_seconds * 2.0 ** min(self.attempt, 30))
        self.attempt += 1
        return delay * (1 - self.jitter * random.random())

    def reset(self) -> None:
        """It worked: the next delay is the first one again."""
        self.attempt = 0
