"""How a long run says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total) now and then; a stage begins at 0 and ends with done equal to total."""


def silent(stage: str, done: int, total: int) -> None:
    """Nobody is watching."""
