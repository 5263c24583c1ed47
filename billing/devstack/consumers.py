"""The consumers of a background stack: one process each, started by name (this package does not import them)."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from billing.devstack.errors import DevStackError
from billing.devstack.identity import POLL_S, ask_to_end, identify, is_running, terminate
from billing.devstack.processes import spawn, tail
from billing.devstack.record import StackRecord
from billing.devstack.server import Say

KINDS = ("relay", "inflight", "postflight", "recharge", "reconciler")
DRAIN_LIMIT_S = 20.0
SETTLE_S = 2.0


def start(found: StackRecord, directory: Path, environ: Mapping[str, str], say: Say) -> Path:
    """Start those that do not run and note them in `found`; returns the folder of their logs.

    Raises DevStackError when one ends within the first moments, which is how a bad setting shows.
    """
    logs = directory / "consumers"
    logs.mkdir(exist_ok=True)
    for kind in KINDS:
        if kind in found.consumers and is_running(found.consumers[kind]):
            say(f"{kind}: the consumer of an earlier `up`")
            continue
        say(f"{kind}: starting the consumer, log in {logs / kind}.log")
        command = [sys.executable, "-m", f"consumers.{kind}"]
        process = spawn(command, log=logs / f"{kind}.log", cwd=directory, environ=environ, death_signal=None)
        if identity := identify(process.pid):
            found.consumers[kind] = identity
    _check_settled(found, logs)
    return logs


def stop(found: StackRecord) -> None:
    """Let all drain at the same time, wait for each, and forget them."""
    for process in found.consumers.values():
        ask_to_end(process)
    for process in found.consumers.values():
        terminate(process, None, DRAIN_LIMIT_S)
    found.consumers.clear()


def _check_settled(found: StackRecord, logs: Path) -> None:
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        for kind in KINDS:
            if kind not in found.consumers or not is_running(found.consumers[kind]):
                raise DevStackError(f"{kind} ended at once: {tail(logs / f'{kind}.log')}")
        time.sleep(POLL_S)
