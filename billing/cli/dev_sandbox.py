"""The payment sandbox of `billing dev up`: a background process that any later call finds again."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from billing.devstack.errors import DevStackError
from billing.devstack.folders import state_dir
from billing.devstack.identity import POLL_S, ProcessId, identify, is_running, terminate
from billing.devstack.locking import locked
from billing.devstack.ports import is_free
from billing.devstack.processes import spawn, tail
from billing.devstack.services import say_on_stderr

BASE, KEY = "BILLING_STRIPE_API_BASE", "BILLING_STRIPE_API_KEY"
START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0
ANSWER_LIMIT_S = 2.0


class _Record(msgspec.Struct):
    """What was started: kept on disk, readable only by us, because it has the sandbox's key."""

    environ: dict[str, str]
    process: ProcessId | None = None


@dataclass(frozen=True)
class SandboxStatus:
    """`state` as of the other services: running, not answering, stopped."""

    state: str
    address: str
    pid: int | None


class BackgroundSandbox:
    """The one sandbox of a state folder. A gateway that is given by the environment is used instead."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._directory = state_dir(environ) / "dev"
        self._path = self._directory / "sandbox.json"
        self._log = self._directory / "sandbox.log"

    def up(self) -> dict[str, str]:
        """The gateway's two variables; the sandbox runs and answers, unless another gateway is given."""
        with locked(self._directory / "sandbox.lock", what="the payment sandbox", limit_s=2 * START_LIMIT_S):
            found = self._load()
            given = {name: self._environ[name] for name in (BASE, KEY) if self._environ.get(name)}
            if given.get(BASE, found.environ.get(BASE)) != found.environ.get(BASE):
                say_on_stderr(f"payments: {given[BASE]}, as {BASE} says")
                return given
            if _runs(found) and _answers(found.environ[BASE]):
                say_on_stderr("payments: the sandbox of an earlier `up`")
                return found.environ
            self._stop(found)
            say_on_stderr("payments: starting the sandbox")
            return self._start(_port(found))

    def down(self, *, remove_data: bool = False) -> bool:
        """Stop it; False when it did not run. Its payments stay unless asked otherwise."""
        found = self._load()
        ran = _runs(found)
        self._stop(found)
        if remove_data:
            shutil.rmtree(self._directory / "sandbox", ignore_errors=True)
            for path in (self._path, self._log):
                path.unlink(missing_ok=True)
        elif found.environ:
            self._save(_Record(found.environ))
        return ran

    def status(self) -> SandboxStatus | None:
        """None where none was started here."""
        found = self._load()
        if not found.environ:
            return None
        address = found.environ[BASE]
        if found.process is None or not is_running(found.process):
            return SandboxStatus("stopped", address, None)
        return SandboxStatus("running" if _answers(address) else "not answering", address, found.process.pid)

    def _start(self, port: int) -> dict[str, str]:
        self._log.touch(mode=0o600)
        begin = self._log.stat().st_size
        command = [sys.executable, "-m", "billing.lab.sandbox", "--json", "--state", str(self._directory / "sandbox")]
        process = spawn(
            [*command, "--port", str(port)],
            log=self._log,
            cwd=self._directory,
            environ=self._environ,
            death_signal=None,
        )
        deadline = time.monotonic() + START_LIMIT_S
        while (said := self._said(begin)) is None:
            if process.poll() is not None:
                raise DevStackError(f"the payment sandbox ended at once: {tail(self._log)}")
            if time.monotonic() > deadline:
                process.kill()
                raise DevStackError(f"the payment sandbox did not answer in time: {tail(self._log)}")
            time.sleep(POLL_S)
        self._save(_Record(said, identify(process.pid)))
        return said

    def _said(self, begin: int) -> dict[str, str] | None:
        """The line that it prints once it accepts connections."""
        with self._log.open("rb") as file:
            file.seek(begin)
            for line in file:
                if line.startswith(b"{"):
                    with suppress(msgspec.MsgspecError):
                        return msgspec.json.decode(line, type=dict[str, str])
        return None

    def _stop(self, found: _Record) -> None:
        if found.process is not None and is_running(found.process):
            terminate(found.process, signal.SIGTERM, STOP_LIMIT_S)

    def _load(self) -> _Record:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Record)
        except (OSError, msgspec.MsgspecError):
            return _Record({})

    def _save(self, record: _Record) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(record))
        fresh.rename(self._path)


def _runs(found: _Record) -> bool:
    return found.process is not None and is_running(found.process)


def _port(found: _Record) -> int:
    """The port that it had, so that addresses stay; 0 where that is taken."""
    port = int(found.environ.get(BASE, ":0").rpartition(":")[2])
    return port if port and is_free(port) else 0


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=ANSWER_LIMIT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
