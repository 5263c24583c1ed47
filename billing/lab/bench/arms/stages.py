"""Where the consumer's own CPU goes: each stage alone, over the same records, in us of CPU per event."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from billing.balance.codec import pack_usage
from billing.balance.store import MAX_BATCH_OPS
from billing.lab.bench.arms.making import Parts
from billing.lab.bench.arms.preloaded import preload
from billing.lab.bench.arms.task import Task
from billing.stream.record import Record, fingerprint
from billing.usage.decode import decode

MOST_RECORDS = 200_000
ROUNDS = 3


async def run(parts: Parts, task: Task) -> dict[str, float]:
    """By stage. `verdict` is decoding, looking up and pricing, so it includes `decode`; `pack` begins with
    operations."""
    each = MOST_RECORDS // len(task.begin)
    short = Task(task.begin, [min(end, begin + each) for begin, end in zip(task.begin, task.end, strict=True)], [], "")
    lanes = await preload(parts.reader, parts.settings.topics.usage, short)
    batches = [lane[at : at + MAX_BATCH_OPS] for lane in lanes for at in range(0, len(lane), MAX_BATCH_OPS)]
    count, interpret = sum(map(len, batches)), parts.usage.interpret
    operations = [interpret(batch).ops for batch in batches]

    def decode_all(batch: Sequence[Record]) -> None:
        for record in batch:
            decode(record)

    return {
        "decode": _micros(decode_all, batches, count),
        "verdict": _micros(interpret, batches, count),
        "pack": _micros(pack_usage, operations, count),
        "fingerprint": _micros(lambda batch: fingerprint(batch[-1]), batches, count),
    }


def _micros(work: Callable[[Any], object], pieces: Iterable[Any], count: int) -> float:
    """The best of three rounds."""
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for piece in pieces:
            work(piece)
        rounds.append(time.process_time() - begin)
    return 1e6 * min(rounds) / count
