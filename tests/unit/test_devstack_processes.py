"""Processes known by pid and start time, and ended with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from billing.devstack.identity import identify, is_running, terminate
from billing.devstack.processes import spawn

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
IGNORE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
STUBBORN = [sys.executable, "-c", IGNORE]


def test_a_reused_pid_is_not_taken_for_the_old_process(tmp_path: Path) -> None:
    process = spawn(SLEEPER, log=tmp_path / "log", cwd=tmp_path)
    try:
        known = identify(process.pid)
        assert known is not None
        assert is_running(known)
        older = replace(known, started="another time")
        assert not is_running(older)
        assert terminate(older, signal.SIGKILL, 1.0)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_zombie_does_not_run() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    known = None
    deadline = time.monotonic() + 10
    while (known := identify(process.pid)) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert known is None
    process.wait()


def test_one_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn(STUBBORN, log=log, cwd=tmp_path)
    while not log.read_bytes():
        time.sleep(0.01)
    known = identify(process.pid)
    assert known is not None
    assert not terminate(known, signal.SIGTERM, 0.1)
    assert process.wait() == -signal.SIGKILL


def test_a_process_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(spawn(SLEEPER, log=tmp_path / "log", cwd=tmp_path)))
    thread.start()
    thread.join()
    time.sleep(0.3)  # a death signal would have come by now
    assert started[0].poll() is None
    started[0].kill()
    started[0].wait()


def test_a_process_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from billing.devstack.processes import spawn\n"
        f"p = spawn({SLEEPER!r}, log=Path('log'), cwd=Path('.')); print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = identify(int(parent.stdout.readline()))
        assert child is not None
        time.sleep(0.2)  # let the launcher arm the signal; a parent that dies before that is noticed by it as well
        os.kill(parent.pid, signal.SIGKILL)
    assert terminate(child, None, 5.0)
