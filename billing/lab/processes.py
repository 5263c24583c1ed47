"""Operating-system processes of a run: none of them may outlive it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from billing.devstack.processes import spawn
from billing.lab.waiting import WaitedTooLong, until


class Process:
    """A child with its output in a file. It has a session of its own, so that a Ctrl-C in the terminal reaches only
    us and the child drains when we ask it to; the kernel kills it should we be killed."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running or last process; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or before the first start."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, again if it has ended; its output is appended to the log."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        self._process = spawn(self._command, log=self.log, cwd=Path.cwd(), environ=self._environ)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await until(lambda: not self.running, f"the end of {self.name}", timeout_seconds=10)

    async def stop(self, timeout_seconds: float = 20) -> bool:
        """SIGTERM, and SIGKILL after the timeout. True when it ended by itself with exit code 0."""
        if not self.running:
            return self.exit_code in (None, 0)
        self.signal(signal.SIGTERM)
        with suppress(WaitedTooLong):
            await until(lambda: not self.running, f"the end of {self.name}", timeout_seconds=timeout_seconds)
        drained = self.exit_code == 0
        await self.kill()
        return drained

    def last_lines(self, count: int = 15) -> list[str]:
        """The end of its log."""
        with suppress(OSError):
            return self.log.read_text(errors="replace").splitlines()[-count:]
        return []
