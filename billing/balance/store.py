"""The balance store as a sink: holds, charges and the ledger's entries, one function call per batch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar, cast

import structlog

from billing.balance import metrics
from billing.balance.calls import Functions, Reply, Trouble
from billing.balance.cluster import Cluster
from billing.balance.codec import BadOperation, BalanceOp, pack_entries, pack_usage
from billing.balance.derive import Deriver
from billing.balance.entries import Malformed
from billing.balance.passed import PassedHolds
from billing.balance.publishing import SignalPublisher
from billing.balance.records import UnknownRecord
from billing.balance.snapshot import LedgerView
from billing.settings import Topics
from billing.stream.record import Position
from billing.stream.sink import (
    Applied,
    ApplyAnswer,
    Batch,
    Behind,
    CatchUp,
    ClaimAnswer,
    Claimed,
    Fenced,
    Halted,
    Owner,
    ReadOnly,
    Refused,
    TendAnswer,
    Tended,
    Unavailable,
    Uninitialised,
)
from billing.usage.ops import DeadLetter

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)

MAX_BATCH_OPS = 160
"""What a runner should put into one batch at most, so that a call blocks the server for about a millisecond."""

CALLS_AT_ONCE = 3
"""Batches that one server is given at a time: it has the next at hand while replies are read, and others that ask it
(admission, proofs) wait for no more than these."""

EXPIRIES_PER_CALL = 200
CALLS_PER_TEND = 10
UNKNOWN_PER_TEND = 20


class RedisSink:
    """Implements `billing.stream.sink.Sink` for BalanceOp. `ledger` derives accounts whose balance is unknown; without
    it they stay unknown. `passed` brings their holds back from the log; without it those wait for their session's next
    event. `signals` publishes what the functions signal; without it that waits in the store."""

    def __init__(
        self,
        functions: Functions,
        topics: Topics,
        *,
        ledger: LedgerView | None = None,
        passed: PassedHolds | None = None,
        signals: SignalPublisher | None = None,
    ) -> None:
        self._functions = functions
        self._signals = signals
        self._topics = topics
        self._deriver = Deriver(functions, ledger, passed) if ledger is not None else None
        self._incarnations: dict[int, str] = {}
        # the nodes of a cluster do not wait for each other, least of all for one that does not answer
        self._turn: AbstractAsyncContextManager[None] = (
            nullcontext() if isinstance(functions.client, Cluster) else asyncio.Semaphore(CALLS_AT_ONCE)
        )

    async def claim(self, partition: int, nonce: str) -> ClaimAnswer:
        """Raise the partition's epoch in the store and become its owner."""
        incarnation = await self._functions.incarnation(partition)
        if not isinstance(incarnation, str):
            return incarnation
        self._incarnations[partition] = incarnation
        keys = self._functions.keys.all(partition, incarnation)
        reply = await self._functions.call("claim", keys, incarnation, "", nonce)
        if not isinstance(reply, list):
            return _counted("claim", _never_fenced(reply))
        epoch, usage_offset, usage_print, entries_offset, entries_print, _timeline = reply[1:]
        positions = {
            self._topics.usage: Position(int(usage_offset), usage_print.decode()),
            self._topics.entries: Position(int(entries_offset), entries_print.decode()),
        }
        owner = Owner(int(epoch), nonce)
        if self._signals is not None:
            self._signals.owned(partition, owner, incarnation)
        return _counted("claim", Claimed(owner, positions))

    async def apply(self, batch: Batch[BalanceOp]) -> ApplyAnswer:
        """Apply a batch of usage or of entries."""
        answer = await self._apply(batch)
        return _counted("apply", answer)

    async def _apply(self, batch: Batch[BalanceOp]) -> ApplyAnswer:
        usage = batch.topic == self._topics.usage
        if not usage and any(isinstance(op, Malformed) for op in batch.ops):
            return await self._refuse_entry(batch)
        try:
            packed = pack_usage(batch.ops) if usage else (pack_entries(batch.ops),)
        except BadOperation as error:
            return Refused(str(error))
        async with self._turn:
            reply = await self._call(
                "usage" if usage else "entries",
                batch.owner,
                batch.partition,
                batch.from_offset,
                batch.to_offset,
                batch.fingerprint,
                batch.log_time_ms,
                int(batch.caught_up),
                *packed,
            )
        if not isinstance(reply, list):
            return reply
        match reply[0]:
            case "behind":
                return Behind(Position(int(reply[1]), reply[2].decode()))
            case "catch_up":
                return CatchUp(self._topics.entries if reply[1] == b"entries" else self._topics.tariffs)
        if reply[1] and self._signals is not None:
            self._signals.wake(batch.partition)
        if usage:
            _count_usage(reply, batch.ops)
        return Applied(batch.to_offset)

    async def tend(
        self, owner: Owner, partition: int, *, at_end: bool, positions: Mapping[str, Position] | None = None
    ) -> TendAnswer:
        """Expire leases (only `at_end`) in short calls, then derive unknown accounts."""
        topics = (self._topics.usage, self._topics.entries)
        expected = ["", ""] if positions is None else [positions[topic].offset for topic in topics]
        for _ in range(CALLS_PER_TEND):
            reply = await self._call(
                "tend", owner, partition, int(at_end), EXPIRIES_PER_CALL, UNKNOWN_PER_TEND, *expected
            )
            if not isinstance(reply, list):
                return _counted("tend", reply)
            open_holds, log_time_ms, expired, unknown, backlog = reply[1], int(reply[2]), *reply[3:6]
            offsets, prints = map(int, reply[6::2]), map(bytes.decode, reply[7::2])
            stands = dict(zip(topics, map(Position, offsets, prints), strict=True))
            metrics.EXPIRED.inc(len(expired))
            metrics.OPEN_HOLDS.labels(str(partition)).set(open_holds)
            if len(expired) < EXPIRIES_PER_CALL:
                break
        if backlog and self._signals is not None:
            self._signals.wake(partition)
        if self._deriver is not None and unknown:
            incarnation = self._incarnations.get(partition, "")
            trouble = await self._deriver.derive(owner, partition, incarnation, log_time_ms, _unknown(unknown))
            if trouble is not None:
                return _counted("tend", trouble)
        return _counted("tend", Tended(open_holds > 0, stands))

    async def halt(self, owner: Owner, partition: int, reason: str) -> None:
        """Mark the partition halted: later claims answer Halted, its balances read as Unknown(halted)."""
        reply = await self._call("halt", owner, partition, reason)
        if not isinstance(reply, Halted):
            log.error("balance.halt_not_stored", partition=partition, answer=type(reply).__name__)

    async def _refuse_entry(self, batch: Batch[BalanceOp]) -> ApplyAnswer:
        """Halt at a record of ledger.entries that is not an entry, under the same checks as any batch."""
        malformed = next(op for op in batch.ops if isinstance(op, Malformed))
        reason = f"malformed entry at {batch.topic}/{batch.partition}/{malformed.offset}"
        reply = await self._call("halt", batch.owner, batch.partition, reason)
        return Halted(reason) if isinstance(reply, list) else reply

    async def _call(self, name: str, owner: Owner, partition: int, *args: str | bytes | int) -> Reply | Trouble:
        incarnation = self._incarnations.get(partition, "")
        keys = self._functions.keys.all(partition, incarnation)
        return await self._functions.call(name, keys, incarnation, owner.epoch, owner.nonce, *args)


def _counted(call: str, answer: Answer) -> Answer:
    metrics.ANSWERS.labels(call, type(answer).__name__).inc()
    return answer


def _never_fenced(trouble: Trouble) -> Refused | Halted | Uninitialised | ReadOnly | Unavailable:
    assert not isinstance(trouble, Fenced)  # a claim has no owner to compare
    return trouble


def _count_usage(reply: Reply, ops: Sequence[BalanceOp]) -> None:
    settled, duplicates, passed, evicted = cast("list[int]", reply[2:])
    metrics.SETTLED.inc(settled)
    metrics.DUPLICATES.inc(duplicates)
    metrics.PASSED.inc(passed)
    metrics.EVICTIONS.inc(evicted)
    for op in ops:
        if type(op) is DeadLetter:
            metrics.DEAD_LETTERS.labels(op.reason.value).inc()


def _unknown(flat: list[bytes]) -> list[tuple[str, UnknownRecord]]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return [(name.decode(), UnknownRecord.unpack(packed)) for name, packed in pairs]
