"""Run one arm. It ends when it is killed, or with a traceback."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import uvloop

from billing.lab.bench.arms import decode, memory, naive, naive_ledger, packed, stages
from billing.lab.bench.arms.making import parts
from billing.lab.bench.arms.task import Task
from billing.lab.bench.counter import Counter
from billing.observe.logs import configure
from billing.settings import Settings


async def main(name: str, task: Task) -> None:
    """`name` is one of memory, packed, decode, naive, naive_ledger, stages."""
    async with parts(Settings.from_env()) as made:
        match name:
            case "memory":
                await memory.run(made, task)
            case "packed":
                await packed.run(made, task)
            case "decode":
                await decode.run(made, task, Counter(Path(task.counter)))
            case "naive":
                await naive.run(made, task, Counter(Path(task.counter)))
            case "naive_ledger":
                await naive_ledger.run(made, task, Counter(Path(task.counter)))
            case "stages":
                found = msgspec.json.encode(await stages.run(made, task))
                await asyncio.to_thread(Path(task.counter).write_bytes, found)
            case _:
                raise ValueError(name)


if __name__ == "__main__":
    configure("bench")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Task)))
