"""How a runner ended, with the process's exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Drained:
    """Stopped because it was asked to; exit code 0."""

    exit_code: Literal[0] = 0
    reason: str = "drained"


@dataclass(frozen=True, slots=True)
class RefusedToRun:
    """This build, the sink and the topics do not fit together; exit code 2 with the reason as its one line."""

    reason: str
    exit_code: Literal[2] = 2


@dataclass(frozen=True, slots=True)
class Crashed:
    """A bug, already logged with its traceback; exit code 1. Nothing was skipped: positions live in the sink."""

    reason: str
    exit_code: Literal[1] = 1


Finished: TypeAlias = Drained | RefusedToRun | Crashed
