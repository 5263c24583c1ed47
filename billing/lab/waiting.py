"""Waiting for what other processes do: always with a deadline (R11)."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


class WaitedTooLong(RuntimeError):
    """What was waited for did not come; the message says what and how long."""


async def until(
    condition: Callable[[], bool | Awaitable[bool]],
    what: str,
    *,
    timeout_seconds: float = 30,
    every_seconds: float = 0.05,
) -> None:
    """Ask `condition` again and again until it is true. Raises WaitedTooLong."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = condition()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        if time.monotonic() >= deadline:
            raise WaitedTooLong(f"{what}: not within {timeout_seconds:g} s")
        await asyncio.sleep(every_seconds)
