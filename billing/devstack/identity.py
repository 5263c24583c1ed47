"""Which process a recorded pid means: a pid alone may have been given to another process since."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

POLL_S = 0.02


@dataclass(frozen=True)
class ProcessId:
    """A process for all time: its pid and when it started, as the system words it."""

    pid: int
    started: str


def identify(pid: int) -> ProcessId | None:
    """The running process with this pid; None when there is none or it is a zombie."""
    started = _started_linux(pid) if sys.platform == "linux" else _started_by_ps(pid)
    return ProcessId(pid, started) if started else None


def is_running(process: ProcessId) -> bool:
    return identify(process.pid) == process


def ask_to_end(process: ProcessId, how: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal, if it still runs, without waiting."""
    _send(process, how)


def terminate(process: ProcessId, how: signal.Signals | None, grace_s: float) -> bool:
    """Send `how` (None: it has been sent), wait at most `grace_s`, then SIGKILL. True when that was not needed."""
    if how is not None:
        _send(process, how)
    if _gone_within(process, grace_s):
        return True
    _send(process, signal.SIGKILL)
    _gone_within(process, 10.0)
    return False


def _send(process: ProcessId, how: signal.Signals) -> None:
    if is_running(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, how)


def _gone_within(process: ProcessId, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while is_running(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _started_linux(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before may hold spaces and parentheses
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{_boot_id()}:{start_ticks}"


@cache
def _boot_id() -> str:
    """Ticks count from the boot, so the boot is part of the time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "boot"


def _started_by_ps(pid: int) -> str | None:
    answer = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()
