"""One local server process: the life cycle that Kafka, Valkey and PostgreSQL share."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from billing.devstack.errors import AddressInUse, DevStackError
from billing.devstack.identity import POLL_S, ProcessId, identify, is_running, terminate
from billing.devstack.ports import free_port, is_free
from billing.devstack.processes import tail

PORT_ATTEMPTS = 5
START_LIMIT_S = 120.0

Say = Callable[[str], None]


def quietly(_: str) -> None:
    """For those who want no progress messages."""



class Server(ABC):
    """A server with its own data folder and port on loopback.

    `durable`: writes survive a power cut. `detached`: it lives on when this process ends. Port and data stay the same
    over stop, kill and start; `discard` ends it and removes its data. Not for use by two threads at once.

    Starting is a generator that yields while it waits, so that one thread, or one event loop, can bring up several
    servers together and be interrupted at any moment.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    discard_signal: ClassVar[signal.Signals] = signal.SIGKILL
    stop_grace_s: ClassVar[float] = 20.0
    defaults: ClassVar[Mapping[str, str]]
    passing: ClassVar[tuple[bytes, ...]] = ()
    """What a start that failed may say in its log that is worth another try in a moment."""

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool = False,
        detached: bool = False,
        ports: tuple[int, ...] = (),
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.durable = durable
        self.detached = detached
        self.ports = ports
        self.config: dict[str, str] = {**self.defaults, **(config or {})}
        """What its configuration file or command line says, by name; the server's own addresses and paths win."""
        self.say: Say = quietly
        self._process: subprocess.Popen[bytes] | None = None
        self.id: ProcessId | None = None

    # What each kind of server says about itself.
    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients, as the setting of this service has it."""

    @abstractmethod
    def _prepare(self) -> Iterator[None]:
        """Create data on first use and write the configuration for `self.ports`."""

    @abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def answers(self) -> bool:
        """Whether this very process answers its clients now; one short look, no waiting."""

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name.lower()}.log"

    @property
    def ports_wanted(self) -> int:
        return 1

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def has_data(self) -> bool:
        """Whether an earlier start has left data."""
        return (self.directory / "data").exists()

    @property
    def is_running(self) -> bool:
        return self.id is not None and is_running(self.id)

    def starting(self, limit_s: float = START_LIMIT_S) -> Iterator[None]:
        """Start and wait until it answers, yielding meanwhile. Raises DevStackError, leaving nothing running."""
        if self.is_running:
            raise DevStackError(f"{self.name} is already running")
        self.directory.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + limit_s
        for attempt in range(1, PORT_ATTEMPTS + 1):
            if not self.ports or not all(is_free(port) for port in self.ports):
                self.ports = tuple(free_port() for _ in range(self.ports_wanted))
            yield from self._prepare()
            try:
                yield from self._start_once(deadline)
            except AddressInUse:
                if attempt == PORT_ATTEMPTS:
                    raise
                self.ports = ()
            else:
                return

    def start(self, limit_s: float = START_LIMIT_S) -> None:
        for _ in self.starting(limit_s):
            time.sleep(POLL_S)

    async def start_async(self, limit_s: float = START_LIMIT_S) -> None:
        for _ in self.starting(limit_s):
            await asyncio.sleep(POLL_S)

    def begin_stop(self) -> None:
        """Ask it to end, without waiting: several servers can then end together."""
        self.resume()
        self._signal(self.stop_signal)

    def stop(self) -> None:
        """Ask it to end, wait, then insist. Nothing happens when it is not running."""
        self.begin_stop()
        self._await_end(self.stop_grace_s)

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when it is gone. Port and data are kept for the next start."""
        self._signal(signal.SIGKILL)
        self._await_end(10.0)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self, limit_s: float = START_LIMIT_S) -> None:
        """Stop it if it runs, and start it on the same data and port."""
        self.stop()
        self.start(limit_s)

    async def restart_async(self, limit_s: float = START_LIMIT_S) -> None:
        await asyncio.to_thread(self.stop)
        await self.start_async(limit_s)

    def discard(self) -> None:
        """End it at once and remove its data."""
        self.resume()
        self._signal(self.discard_signal)
        self._await_end(self.stop_grace_s)
        shutil.rmtree(self.directory, ignore_errors=True)

    def adopt(self, process: ProcessId) -> None:
        """Take over a process that an earlier run started with the same folder and ports."""
        self.id = process

    def _start_once(self, deadline: float) -> Iterator[None]:
        """One process from its start until it answers; again when it ended for a reason that passes."""
        while True:
            seen_bytes = self.log.stat().st_size if self.log.exists() else 0
            self._process = self._spawn()
            self.id = identify(self._process.pid)
            try:
                yield from self._until_it_answers(self._process, deadline)
            except BaseException:  # an interrupt included: nothing is left running
                self.kill()
                raise
            if self._process.poll() is None:
                return
            code = self._process.returncode
            self.kill()
            said = self._said_since(seen_bytes)
            if b"ddress already in use" in said:
                raise AddressInUse(f"{self.name}: port {self.port} is taken")
            if time.monotonic() > deadline or not any(passing in said for passing in self.passing):
                raise DevStackError(f"{self.name} ended while starting (exit code {code}): {tail(self.log)}")
            yield

    def _until_it_answers(self, process: subprocess.Popen[bytes], deadline: float) -> Iterator[None]:
        while process.poll() is None and not self.answers():
            if time.monotonic() > deadline:
                raise DevStackError(f"{self.name} did not answer in time: {tail(self.log)}")
            yield

    def _said_since(self, seen_bytes: int) -> bytes:
        with self.log.open("rb") as file:
            file.seek(seen_bytes)
            return file.read()

    def _signal(self, number: signal.Signals) -> None:
        if self.id is not None and is_running(self.id):
            with suppress(ProcessLookupError):
                os.kill(self.id.pid, number)

    def _await_end(self, grace_s: float) -> None:
        """Wait for a process that has been told to end, SIGKILL it after the grace, and forget it."""
        if self.id is not None:
            terminate(self.id, None, grace_s)
        if self._process is not None:
            self._process.wait(10)
        self._process = None
        self.id = None
