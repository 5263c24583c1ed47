"""Who goes first on cores that a process shares with others."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def set_nice(nice: int, pid: int = 0) -> str | None:
    """Set a process's nice value (-20 goes first, 19 last), this one's without `pid`, before it has threads; None, or
    why the system refuses: to go before others takes CAP_SYS_NICE.

    Linux with `kernel.sched_autogroup_enabled` shares cores between sessions first, and nice says nothing between
    processes of different ones (sched(7)): the value is then given to the session too, where it leads one. Under a
    cgroup's CPU weight, as service managers set it, neither says anything: use that.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        autogroup = PROC / (str(pid) if pid else "self") / "autogroup"
        # where that is switched off, the file is empty
        if os.getsid(pid) == (pid or os.getpid()) and autogroup.exists() and autogroup.read_text():
            autogroup.write_text(str(nice))
    except OSError as error:
        return error.strerror
    return None
