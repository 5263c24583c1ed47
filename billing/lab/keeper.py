"""Starts consumers again that have ended, as systemd or Kubernetes would; and ends some, to see that they are."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from billing.lab.supervise import ConsumerFailed, Supervisor

FIRST_BACK_OFF_SECONDS = 0.25
LIMIT_SECONDS = 8.0
STEADY_SECONDS = 10.0  # one that has run for so long has recovered
MOST_IN_A_ROW = 6
LOOK_EVERY_SECONDS = 0.05


class Restart(NamedTuple):
    """A consumer that ended and was started again. `killed`: with SIGKILL, so not by its own doing."""

    name: str
    exit_code: int
    down_seconds: float

    @property
    def killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL

    def __str__(self) -> str:
        how = "SIGKILL" if self.killed else f"exit code {self.exit_code}"
        return f"{self.name} ({how}, away for {self.down_seconds:.1f} s)"


class Keeper:
    """Keeps the consumers of a supervisor; see `keeping`."""

    def __init__(self, supervisor: Supervisor, say: Callable[[str], None]) -> None:
        self.restarts: list[Restart] = []
        self._supervisor = supervisor
        self._say = say
        self._in_a_row: Counter[str] = Counter()
        self._started: dict[str, float] = {}

    async def run(self) -> None:
        """For ever. Raises ConsumerFailed for one that ends again and again."""
        ended: dict[str, float] = {}
        while True:
            now = time.monotonic()
            for name in self._supervisor.dead():
                if name not in ended:
                    ended[name] = now
                    self._count(name, now)
                elif now >= ended[name] + self._back_off(name):
                    self._restart(name, now - ended.pop(name))
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    def crash(self, name: str) -> None:
        """SIGKILL one: it is gone in the middle of whatever it does."""
        self._supervisor.consumers[name].signal(signal.SIGKILL)

    def _count(self, name: str, now: float) -> None:
        if now - self._started.get(name, 0.0) > STEADY_SECONDS:
            self._in_a_row[name] = 0
        self._in_a_row[name] += 1
        consumer = self._supervisor.consumers[name]
        if self._in_a_row[name] > MOST_IN_A_ROW:
            raise ConsumerFailed(f"{name} ended {MOST_IN_A_ROW} times in a row{consumer.last_words()}")
        if consumer.exit_code != -signal.SIGKILL:
            self._say(f"{name} ended with exit code {consumer.exit_code}{consumer.last_words()}")

    def _back_off(self, name: str) -> float:
        return min(LIMIT_SECONDS, FIRST_BACK_OFF_SECONDS * 2.0 ** (self._in_a_row[name] - 1))

    def _restart(self, name: str, down_seconds: float) -> None:
        exit_code = self._supervisor.consumers[name].exit_code
        self._supervisor.restart(name)
        self._started[name] = time.monotonic()
        self.restarts.append(Restart(name, exit_code or 0, down_seconds))
        self._say(f"started {self.restarts[-1]}")


@asynccontextmanager
async def keeping(supervisor: Supervisor, say: Callable[[str], None]) -> AsyncIterator[Keeper]:
    """Consumers that end are started again while the block runs. A failure of the keeper ends the block."""
    keeper = Keeper(supervisor, say)
    supervisor.kept = True
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(keeper.run())
            try:
                yield keeper
            finally:
                task.cancel()
    finally:
        supervisor.kept = False


def killings(kill: str, names: tuple[str, ...], seconds: float, seed: int) -> list[tuple[float, str]]:
    """When (seconds from the beginning of the traffic) to kill which consumer: one in the middle, or with "random" one
    every few seconds, the same for the same seed. "" kills nobody."""
    if not kill:
        return []
    if kill != "random":
        return [(seconds / 2, kill)]
    rng = random.Random(f"kill {seed}")
    every, found = max(0.8, min(4.0, seconds / 6)), []
    at = every * rng.uniform(0.5, 1.0)
    while at < seconds:
        found.append((at, rng.choice(names)))
        at += every * rng.uniform(0.6, 1.4)
    return found
