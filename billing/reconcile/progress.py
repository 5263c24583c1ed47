"""How a long run says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total) now and then; done equals total once, when the stage ends."""


def silent(stage: str, done: int, total: int) -> None:
    """Nobody is watching."""


class Stage:
    """One stage of a run. `total` may be an estimate: until `end` is called, done stays below it."""

    def __init__(self, progress: Progress, name: str, total: int) -> None:
        self._progress = progress
        self._name = name
        self._total = total
        self.at(0)

    def at(self, done: int) -> None:
        """So far."""
        if done < self._total:
            self._progress(self._name, done, self._total)

    def end(self) -> None:
        """The stage is over."""
        self._progress(self._name, self._total, self._total)
