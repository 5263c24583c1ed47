"""Operating-system processes of a run: none of them may outlive it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Runs in the child before exec: the kernel kills it when the process that started it is gone."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child with its output in a file. It runs in a session of its own, so that a Ctrl-C in the terminal reaches
    only us and the child is asked to drain in our order. Start it from the main thread: the kernel ties
    the child to the thread that forked it."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the running or last process; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, again if it has ended; its output is appended to the log."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=dict(self._environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        finally:
            os.close(output)

    async def ended(self, timeout_seconds: float) -> int | None:
        """Its exit code, or None when it still runs after the timeout."""
        if self._process is None:
            return None
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._process.wait(), timeout_seconds)
        return None

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.ended(10)

    async def stop(self, timeout_seconds: float = 15) -> bool:
        """SIGTERM, and SIGKILL after the timeout. True when it ended by itself with exit code 0."""
        if not self.running:
            return self.exit_code in (None, 0)
        self.signal(signal.SIGTERM)
        code = await self.ended(timeout_seconds)
        if code is None:
            await self.kill()
        return code == 0

    def last_lines(self, count: int = 15) -> str:
        """The end of its log, for a message about why it ended."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        return ""
