"""A bounded number of tasks side by side (R11)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Slots:
    """At most `limit` tasks. They must not raise: what goes wrong is theirs to say."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()

    @property
    def free(self) -> int:
        return self._limit - len(self._running)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Begin `work` in a free slot; there must be one."""
        assert self.free > 0
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def until_free(self) -> None:
        """Until there is a free slot."""
        while self.free <= 0:
            self._freed.clear()
            await self._freed.wait()

    async def finish(self, timeout_s: float) -> None:
        """Let those that run end, then cancel the rest."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        rest = list(self._running)
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._freed.set()
