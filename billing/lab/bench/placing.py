"""Where processes run and which go first. The consumer and the store work for each other all the time: Linux puts a
process that is woken where it ran last, or beside who woke it, and there one waits for the other although a core has
nothing to do. So each is kept to a core; others may be there, too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

CPUS = Path("/sys/devices/system/cpu")


class Places(NamedTuple):
    """Numbers of cores; None where nobody is kept to one."""

    consumer: int | None
    store: int | None

    @property
    def stated(self) -> Mapping[str, str]:
        """For the conditions of a table."""
        kept = "none" if self.consumer is None else f"consumer {self.consumer}, store {self.store}"
        return {"kept to cores": kept}


def places() -> Places:
    """The first of the cores that we may use, and the first other that is not a thread of it; none where there is no
    such, or where the system does not let us."""
    try:
        ours = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, ours)
    except (AttributeError, OSError):  # not Linux; not allowed
        return Places(None, None)
    others = [core for core in ours if core not in _threads_of(ours[0])]
    return Places(ours[0], others[0]) if others else Places(None, None)


def keep(pid: int, core: int | None) -> None:
    """Keep a process's first thread to a core, and what it starts from now on; with None nothing happens."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


def at_once(pid: int) -> bool:
    """Let a process's first thread, and what it starts from now on, run as soon as it can (SCHED_RR): whoever has the
    core waits. Whether the system lets us: it takes CAP_SYS_NICE."""
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    except (AttributeError, OSError):
        return False
    return True


def _threads_of(core: int) -> set[int]:
    """The processors that are threads of the same core, such as "0,4" or "0-1" in a file of Linux."""
    found = {core}
    with suppress(OSError):
        for part in (CPUS / f"cpu{core}/topology/thread_siblings_list").read_text().strip().split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found
