"""The write proof before money moves: the store that the balance was read from takes a write and still has it, seen
over a connection made afresh (R2, design section 7, check 6).

One function call refuses what is not a known balance of the expected incarnation and writes the intent's marker; WAIT
and WAITAOF follow on the same connection, as configured; then the balance is read again over a newly discovered
connection: the same server process, the marker there, positions not behind. An isolated old primary fails here, because
the new connection finds another server (S49).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from billing.balance.calls import Functions
from billing.balance.client import Client, node_of
from billing.balance.conditions import level_micros
from billing.balance.errors import CALL_ERRORS, answer_for
from billing.balance.proof_answers import (
    NO_WAIT,
    Durability,
    Expected,
    ProofAnswer,
    ProofRefusal,
    ProofRefused,
    ProofUnavailable,
    Proved,
)
from billing.balance.records import AccountRecord, UnknownRecord
from billing.stream.sink import Owner, ReadOnly, Unavailable

DEADLINE_S = 8.0

__all__ = [
    "Durability",
    "Expected",
    "ProofAnswer",
    "ProofRefusal",
    "ProofRefused",
    "ProofUnavailable",
    "Proved",
    "prove",
]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One reading of the account."""

    record: AccountRecord
    usage_position: int
    entries_position: int
    log_time_ms: int
    owner: Owner
    marker: str
    run_id: str
    role: str


async def prove(
    functions: Functions,
    partition: int,
    account: str,
    marker: str,
    *,
    expected: Expected,
    discover: Callable[[], Client],
    durability: Durability = NO_WAIT,
    deadline_s: float = DEADLINE_S,
) -> ProofAnswer:
    """Prove that the store behind `functions` takes writes and that `account`'s balance there is the one in force.

    `marker` names the intent; a later proof of the account overwrites it. `discover` makes a new client that finds the
    primary anew (asks sentinels, cluster nodes) and is closed here. Raises nothing for a store that refuses or is away.
    """
    meta = functions.keys.meta(partition)
    call = _Call(functions, partition, account, marker, expected)
    try:
        async with asyncio.timeout(deadline_s):
            written = await call.write(await node_of(functions.client, meta), durability)
            if not isinstance(written, tuple):
                return written
            first, acknowledged = written
            fresh = discover()
            try:
                second = await call.read(await node_of(fresh, meta))
            finally:
                await fresh.aclose()
            if not isinstance(second, _Seen):
                return second
            return _compared(first, second, expected, marker, acknowledged)
    except CALL_ERRORS as error:
        return _trouble(error)


@dataclass(frozen=True, slots=True)
class _Call:
    functions: Functions
    partition: int
    account: str
    marker: str
    expected: Expected

    async def write(self, client: Redis, durability: Durability) -> tuple[_Seen, int] | ProofRefused | ProofUnavailable:
        """The marker, who took it, and how far it came, all on one connection. Also how many replicas have it."""
        pipe = client.pipeline(transaction=False)
        self._queue(pipe, "prove", self.marker)
        if durability.replicas > 0:
            pipe.execute_command("WAIT", durability.replicas, durability.wait_ms)
        if durability.aof:
            pipe.execute_command("WAITAOF", 1, 0, durability.wait_ms)
        seen, waits = await self._run(pipe)
        if not isinstance(seen, _Seen):
            return seen
        acknowledged = 0
        if durability.replicas > 0:
            acknowledged = _count(waits.pop(0))
            if acknowledged < durability.replicas:
                return ProofRefused(ProofRefusal.REPLICAS, f"{acknowledged} of {durability.replicas}")
        if durability.aof and (_count(waits[0]) < 1):
            detail = str(waits[0]) if isinstance(waits[0], Exception) else "no fsync in time"
            return ProofRefused(ProofRefusal.AOF, detail[:200])
        return seen, acknowledged

    async def read(self, client: Redis) -> _Seen | ProofRefused | ProofUnavailable:
        """The account and its marker, and who answers."""
        pipe = client.pipeline(transaction=False)
        self._queue(pipe, "marked")
        return (await self._run(pipe))[0]

    def _queue(self, pipe: Any, name: str, *args: str) -> None:
        functions, incarnation = self.functions, str(self.expected.incarnation)
        keys = functions.keys.all(self.partition, incarnation)
        head = (functions.version, functions.keys.partitions, functions.keys.generation_ms, incarnation)
        command = pipe.fcall_ro if name == "marked" else pipe.fcall
        command(f"{functions.library}_{name}", len(keys), *keys, *head, self.account, self.expected.timeline, *args)
        pipe.info("server")
        pipe.info("replication")

    async def _run(self, pipe: Any) -> tuple[_Seen | ProofRefused | ProofUnavailable, list[Any]]:
        """What was seen, or why not; and the answers after it, errors included."""
        reply, server, replication, *waits = await pipe.execute(raise_on_error=False)
        for answer in (reply, server, replication):
            if isinstance(answer, Exception):
                return _trouble(answer), waits
        return _seen(reply, server, replication), waits


def _seen(reply: list[Any], server: Mapping[str, Any], replication: Mapping[str, Any]) -> _Seen | ProofRefused:
    if reply[0] != b"proven":
        return _refusal(reply[0].decode(), reply[1])
    _, packed, status, epoch, nonce, marker = reply
    record = AccountRecord.read(packed)
    if record is None:
        return ProofRefused(ProofRefusal.UNKNOWN, "unreadable")
    return _Seen(
        record=record,
        usage_position=int(status[0]),
        entries_position=int(status[2]),
        log_time_ms=int(status[4]),
        owner=Owner(int(epoch), nonce.decode()),
        marker=(marker or b"").decode(),
        run_id=str(server["run_id"]),
        role=str(replication["role"]),
    )


def _refusal(name: str, detail: bytes) -> ProofRefused:
    match name:
        case "unknown":
            return ProofRefused(ProofRefusal.UNKNOWN, UnknownRecord.unpack(detail).reason)
        case "uninitialised" if detail == b"incarnation":
            return ProofRefused(ProofRefusal.INCARNATION)
        case "uninitialised":
            return ProofRefused(ProofRefusal.NOT_READY, detail.decode())
        case "refused":
            return ProofRefused(ProofRefusal.VERSION, detail.decode())
        case _:
            return ProofRefused(ProofRefusal(name), detail.decode())


def _compared(first: _Seen, second: _Seen, expected: Expected, marker: str, acknowledged: int) -> ProofAnswer:
    """Both readings are of one server, and nothing went back."""
    if first.run_id != second.run_id:
        return ProofRefused(ProofRefusal.RUN_ID, f"{first.run_id}, then {second.run_id}")
    if first.role != "master" or second.role != "master":
        return ProofRefused(ProofRefusal.NOT_PRIMARY)
    if second.marker != marker:
        return ProofRefused(ProofRefusal.MARKER, second.marker)
    least_usage = max(expected.usage_position, first.usage_position)
    if (
        first.usage_position < expected.usage_position
        or second.usage_position < least_usage
        or second.entries_position < first.entries_position
        or second.record.ledger_seq < first.record.ledger_seq
    ):
        return ProofRefused(ProofRefusal.BEHIND, f"usage {second.usage_position}, least {least_usage}")
    record = second.record
    return Proved(
        level_micros=level_micros(record),
        credit_micros=record.credit,
        used_micros=record.used,
        held_micros=record.held,
        excluded_micros=record.excluded,
        status=record.status,
        ledger_seq=record.ledger_seq,
        incarnation=expected.incarnation,
        owner=second.owner,
        usage_position=second.usage_position,
        entries_position=second.entries_position,
        log_time_ms=second.log_time_ms,
        run_id=second.run_id,
        replicas_acknowledged=acknowledged,
    )


def _count(answer: Any) -> int:
    """What WAIT or WAITAOF counted; 0 for an error."""
    if isinstance(answer, Exception):
        return 0
    return int(cast("list[int]", answer)[0] if isinstance(answer, list) else answer)


def _trouble(error: Exception) -> ProofRefused | ProofUnavailable:
    answer = answer_for(error)
    if isinstance(answer, ReadOnly):
        return ProofRefused(ProofRefusal.READ_ONLY, answer.reason)
    if isinstance(answer, Unavailable):
        return ProofUnavailable(answer.reason)
    return ProofRefused(ProofRefusal.NOT_READY, answer.reason)
