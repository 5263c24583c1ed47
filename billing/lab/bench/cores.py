"""What the machine's cores do just now. Virtual ones are at times two threads of one, or shared with strangers: then a
drain makes half of what it made a minute before, and a table has to show it."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

LOOKS = 7
SECONDS = 0.1
_LOOP = """
import sys, time
for line in sys.stdin:
    loops, end = 0, time.perf_counter() + float(line)
    while time.perf_counter() < end:
        for _ in range(1000):
            loops += 1
    print(loops, flush=True)
"""


async def cores() -> dict[str, float]:
    """Medians of LOOKS looks: million turns a second of a loop in Python that runs alone, and how many times as much
    two of them make at once (1 to 2). Takes about two seconds."""
    alone: list[float] = []
    worth: list[float] = []
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(_looping()) for _ in range(2)]
        for _ in range(LOOKS):
            one, two = two, one
            alone.append(await _turns(one))
            worth.append(sum(await asyncio.gather(_turns(one), _turns(two))) / alone[-1])
    return {"core_turns": median(alone) / SECONDS / 1e6, "cores_worth": median(worth)}


@asynccontextmanager
async def _looping() -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _LOOP, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def _turns(process: Process) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{SECONDS}\n".encode())
    return int(await process.stdout.readline())
