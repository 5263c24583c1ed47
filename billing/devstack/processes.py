"""Starting server processes: in a session of their own, and ending with their parent unless they are meant to stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
QUIET_ENVIRON = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

# The death signal is sent when the *thread* that started the process ends, so every process is started by this one,
# which lives as long as the interpreter: servers can then be (re)started from any thread.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="devstack-starter")


@dataclass(frozen=True)
class User:
    """The user that a process becomes."""

    uid: int
    gid: int


def spawn(
    command: Sequence[str | os.PathLike[str]],
    *,
    log: Path,
    cwd: Path,
    environ: Mapping[str, str] | None = None,
    user: User | None = None,
    death_signal: signal.Signals | None = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a process that writes both its outputs to the end of `log`.

    `death_signal` is what it gets when this process dies; None lets it live on. A session of its own keeps a
    terminal's Ctrl-C away from it: who started it stops it, in its own order.
    """
    parent = os.getpid() if death_signal is not None else 0
    launch = [
        *(sys.executable, "-I", "-S", LAUNCHER),
        *(str(parent), str(int(death_signal or 0)), str(user.uid if user else -1), str(user.gid if user else -1)),
        *command,
    ]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                launch,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(QUIET_ENVIRON if environ is None else environ),
                start_new_session=True,
            )

    return _starter.submit(start).result()


def tail(log: Path, lines: int = 5, limit_bytes: int = 4000) -> str:
    """The end of a log, on one line, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - limit_bytes))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "no log"
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip()) or "empty log"
