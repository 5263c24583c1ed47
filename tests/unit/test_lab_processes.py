"""Processes of the demo: stopped, killed, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from billing.lab.processes import Process
from billing.lab.waiting import until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
time.sleep(60)
"""
PARENT = """
import asyncio, os, sys
from pathlib import Path
from billing.lab.processes import Process
async def main():
    child = Process("child", [sys.executable, "-c", "import time; time.sleep(60)"], os.environ, Path(sys.argv[1]))
    child.start()
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def _process(folder: Path, code: str) -> Process:
    return Process("child", [sys.executable, "-c", code], os.environ, folder / "child.log")


async def _until_up(process: Process) -> None:
    await until(lambda: process.last_lines() == ["up"], "the child's first line")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_stop_lets_a_process_drain(tmp_path: Path) -> None:
    process = _process(tmp_path, POLITE)
    process.start()
    await _until_up(process)
    assert await process.stop()
    assert process.exit_code == 0
    assert await process.stop()  # again does no harm


async def test_stop_kills_one_that_does_not_listen(tmp_path: Path) -> None:
    process = _process(tmp_path, STUBBORN)
    process.start()
    await _until_up(process)
    assert not await process.stop(timeout_seconds=0.3)
    assert process.exit_code == -signal.SIGKILL


async def test_a_killed_process_starts_again_and_its_log_goes_on(tmp_path: Path) -> None:
    process = _process(tmp_path, POLITE)
    process.start()
    await _until_up(process)
    first = process.pid
    await process.kill()
    assert not process.running
    process.start()
    try:
        assert process.pid != first
        await until(lambda: process.last_lines() == ["up", "up"], "the second start's line")
    finally:
        await process.kill()


async def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 10))
    assert _alive(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not _alive(child), "the child's end", timeout_seconds=10)
