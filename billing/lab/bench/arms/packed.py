"""The store's ceiling: batches that were interpreted and packed beforehand, straight to the function."""

from __future__ import annotations

import asyncio
import gc
import secrets
from dataclasses import dataclass

from billing.balance.calls import Functions
from billing.balance.codec import pack_usage
from billing.balance.store import MAX_BATCH_OPS, RedisSink
from billing.lab.bench.arms.making import Parts
from billing.lab.bench.arms.preloaded import preload
from billing.lab.bench.arms.task import Task
from billing.stream.record import Record, fingerprint
from billing.stream.sink import Claimed, Owner
from billing.usage.interpreters import UsageInterpreter
from billing.usage.live import LiveOp


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call, behind the owner's."""

    from_offset: int
    to_offset: int
    fingerprint: str
    log_time_ms: int
    packed: tuple[bytes, bytes]


async def run(parts: Parts, task: Task) -> None:
    """All partitions side by side, each call after the one before; then it waits to be killed."""
    topics, functions = parts.settings.topics, parts.functions
    records = await preload(parts.reader, topics.usage, task)
    lanes = [_calls(parts.usage, each, task.begin[partition]) for partition, each in enumerate(records)]
    records.clear()
    gc.collect()
    sink = RedisSink(functions, topics)
    owners = []
    for partition in range(len(lanes)):
        claimed = await sink.claim(partition, secrets.token_hex(8))
        if not isinstance(claimed, Claimed):
            raise RuntimeError(f"partition {partition}: {claimed}")  # noqa: TRY004 - no type error
        owners.append(claimed.owner)
    await asyncio.gather(*(_lane(functions, p, owners[p], calls) for p, calls in enumerate(lanes)))
    await asyncio.Event().wait()


def _calls(interpreter: UsageInterpreter[LiveOp], records: list[Record], begin: int) -> list[Call]:
    calls, at, position = [], 0, begin
    while at < len(records):
        made = interpreter.interpret(records[at : at + MAX_BATCH_OPS])
        if not made.taken:
            raise RuntimeError(f"offset {records[at].offset} needs a horizon of {made.needs_horizon_ms}")
        last = records[at + made.taken - 1]
        calls.append(Call(position, last.offset + 1, fingerprint(last), last.timestamp, pack_usage(made.ops)))
        at, position = at + made.taken, last.offset + 1
    return calls


async def _lane(functions: Functions, partition: int, owner: Owner, calls: list[Call]) -> None:
    incarnation = await functions.incarnation(partition)
    if not isinstance(incarnation, str):
        raise RuntimeError(f"partition {partition}: {incarnation}")  # noqa: TRY004 - no type error
    keys = functions.keys.all(partition, incarnation)
    for call in calls:
        answer = await functions.call(
            *("usage", keys, incarnation, owner.epoch, owner.nonce, call.from_offset, call.to_offset),
            *(call.fingerprint, call.log_time_ms, 0, *call.packed),
        )
        if not isinstance(answer, list) or answer[0] != "applied":
            raise RuntimeError(f"partition {partition} at {call.from_offset}: {answer}")
