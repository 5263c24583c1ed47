"""`billing demo` as a process of a test."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from billing.lab.waiting import until

BILLING = Path(sys.executable).with_name("billing")


class Demo:
    """A running `billing demo`, its output read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.output += line.decode()

    async def says(self, text: str, timeout_seconds: float = 60) -> None:
        await until(lambda: text in self.output or self._reading.done(), repr(text), timeout_seconds=timeout_seconds)
        assert text in self.output, self.output

    async def ended(self, timeout_seconds: float = 60) -> int:
        async with asyncio.timeout(timeout_seconds):
            await self._reading
            return await self.process.wait()


@asynccontextmanager
async def running_demo(
    state: Path, *options: str, environ: Mapping[str, str], in_background: bool = False
) -> AsyncIterator[Demo]:
    """`in_background`: with SIGINT ignored, as a script starts what it puts into the background."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BILLING_", "DEMO_"))}
    process = await asyncio.create_subprocess_exec(
        str(BILLING),
        "demo",
        *options,
        env={**kept, "BILLING_STATE_DIR": str(state), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_IGN) if in_background else None,
    )
    demo = Demo(process)
    try:
        yield demo
    finally:
        if process.returncode is None:
            process.kill()
        await demo.ended(10)


def family_of(pid: int) -> dict[int, str]:
    """Every process below `pid`, with its command line."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    family: dict[int, str] = {}
    found = {pid}
    while found := {child for child, parent in parents.items() if parent in found}:
        family |= {child: command_of(child) for child in found}
    return family


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
