"""CPU time of processes, from /proc: what the kernel has counted, so that nothing has to be asked of them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def own_seconds(pid: int) -> float:
    """User and system time of a process, all its threads; 0 when it is gone."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND if fields else 0.0


def family_seconds(pid: int) -> float:
    """Of a process, its children that live (not theirs), and all that have ended: PostgreSQL's backends."""
    fields = _fields(pid)
    if not fields:
        return 0.0
    total = sum(int(fields[n]) for n in (11, 12, 13, 14)) / TICKS_PER_SECOND
    return total + sum(own_seconds(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in (PROC / f"{pid}/task/{pid}/children").read_text().split()]
    return []


def _fields(pid: int) -> list[str]:
    """Of /proc/<pid>/stat behind the command's name (which may hold blanks), so the first is the state."""
    with suppress(OSError):
        return (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    return []
