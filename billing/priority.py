"""Who goes first on cores that a process shares with others."""

from __future__ import annotations

import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")


def set_nice(nice: int) -> str | None:
    """Set this process's nice value (-20 goes first, 19 last), before it has threads; None, or why the system refuses:
    to go before others takes CAP_SYS_NICE.

    Linux with `kernel.sched_autogroup_enabled` shares cores between sessions first, and nice says nothing between
    processes of different ones (sched(7)): the value is then given to the session too, where we lead one. Under a
    cgroup's CPU weight, as service managers set it, neither says anything: use that.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        # where that is switched off, the file is empty
        if os.getsid(0) == os.getpid() and AUTOGROUP.exists() and AUTOGROUP.read_text():
            AUTOGROUP.write_text(str(nice))
    except OSError as error:
        return error.strerror
    return None
