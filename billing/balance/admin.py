"""Setting the balance store up, and the steps of rebuilding it. Each changes one partition in fenced calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias
from uuid import uuid4

from billing.balance.calls import Functions, Trouble
from billing.balance.client import primaries
from billing.balance.library import source
from billing.balance.records import AccountRecord, HoldRecord
from billing.stream.record import Position
from billing.stream.sink import Owner, ReadOnly, Unavailable, Uninitialised
from billing.usage.ops import SessionKind, session_key

CHUNK = 300  # records of one call


@dataclass(frozen=True, slots=True)
class Positions:
    """Where the two topics of a partition go on, and its log time in ms."""

    usage: Position
    entries: Position
    log_time_ms: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """The step was done."""


@dataclass(frozen=True, slots=True)
class Exists:
    """The partition was initialised before; nothing was changed. `state` is ready, rebuilding, …"""

    incarnation: str
    timeline: str
    partitions: str
    generation_ms: str
    state: str


@dataclass(frozen=True, slots=True)
class NotNew:
    """A rebuild needs an incarnation above every one used here; `newest` is the highest of them."""

    newest: int


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A rebuild in progress: the owner that the fenced steps name, and whose keys go at the end."""

    partition: int
    incarnation: int
    owner: Owner
    replaces: str  # the incarnation in force before, "" where there was none


Session: TypeAlias = tuple[SessionKind, str, str]
"""(kind, account, session)"""


async def load_functions(functions: Functions) -> ReadOnly | Unavailable | Uninitialised | None:
    """Load or replace the function library (on every primary of a cluster)."""
    text = source(functions.library, functions.version)
    nodes = await functions.run(primaries(functions.client))
    if isinstance(nodes, ReadOnly | Unavailable | Uninitialised):
        return nodes
    for name, node in nodes.items():
        answer = await functions.run(node.function_load(text, replace=True))
        if isinstance(answer, ReadOnly | Unavailable | Uninitialised):
            return replace(answer, reason=f"{name}: {answer.reason}") if name else answer
    return None


async def initialise(
    functions: Functions, partition: int, incarnation: int, timeline: str, positions: Positions
) -> Done | Exists | Trouble:
    """A first, empty state. Refused with Exists where the partition has one."""
    args = ("0", "", timeline, *_position_args(positions))
    keys = functions.keys.all(partition, str(incarnation))
    reply = await functions.call("initialise", keys, str(incarnation), *args)
    if not isinstance(reply, list):
        return reply
    return Exists(*(text.decode() for text in reply[1:])) if reply[0] == "exists" else Done()


async def begin_rebuild(functions: Functions, partition: int, incarnation: int) -> Rebuild | NotNew | Trouble:
    """Fence the partition's owner; every balance is Unknown(rebuilding) from here on. `incarnation` was minted in the
    ledger and is above every one used here. What an unfinished rebuild left is removed."""
    key = functions.keys.meta(partition)
    meta = await functions.at(key, lambda node: node.hmget(key, ["incarnation", "building"]))
    if isinstance(meta, ReadOnly | Unavailable | Uninitialised):
        return meta
    replaces, abandoned = ((value or b"").decode() for value in meta)
    keys = functions.keys.all(partition, str(incarnation))
    if abandoned:
        keys += functions.keys.data(partition, abandoned)
    nonce = f"rebuild-{uuid4().hex}"
    reply = await functions.call("begin", keys, str(incarnation), abandoned, nonce)
    if not isinstance(reply, list):
        return reply
    if reply[0] == "stale":
        return NotNew(int(reply[1]))
    return Rebuild(partition, incarnation, Owner(int(reply[1]), nonce), replaces)


async def write_accounts(
    functions: Functions, rebuild: Rebuild, records: Mapping[str, AccountRecord], usage_offset: int = 0
) -> Done | Trouble:
    """Account records as of `usage_offset`, with `held` the sum of the holds that are written. One that the store
    cannot hold exactly (R10) will be Unknown(overflow). Repeating a write is harmless."""
    for chunk in _chunks(records.items()):
        flat = [part for account, record in chunk for part in (account, record.pack())]
        answer = await _fill(functions, rebuild, "accounts", flat, usage_offset)
        if not isinstance(answer, Done):
            return answer
    return Done()


async def write_holds(
    functions: Functions, rebuild: Rebuild, holds: Mapping[Session, HoldRecord]
) -> Done | Trouble:
    """Open holds."""
    for chunk in _chunks(holds.items()):
        flat = [
            part
            for (kind, account, session), hold in chunk
            for part in (session_key(kind, account, session), hold.pack(), str(hold.lease_end_ms))
        ]
        answer = await _fill(functions, rebuild, "holds", flat)
        if not isinstance(answer, Done):
            return answer
    return Done()


async def write_settled(
    functions: Functions, rebuild: Rebuild, sessions: Iterable[Session], log_time_ms: int
) -> Done | Trouble:
    """Sessions settled at about `log_time_ms`, for the dedupe window: that time's generation must be the one of the
    final log time or one of the two before it (later ones count as that; earlier ones need not be written)."""
    generation = log_time_ms // functions.keys.generation_ms
    for chunk in _chunks(sessions):
        flat = [session_key(kind, account, session) for kind, account, session in chunk]
        answer = await _fill(functions, rebuild, "settled", flat, generation)
        if not isinstance(answer, Done):
            return answer
    return Done()


async def finish_rebuild(
    functions: Functions, rebuild: Rebuild, timeline: str, positions: Positions
) -> Done | Trouble:
    """Put the new incarnation in force and remove the keys of the one it replaces."""
    keys = functions.keys.all(rebuild.partition, str(rebuild.incarnation))
    if rebuild.replaces:
        keys += functions.keys.data(rebuild.partition, rebuild.replaces)
    args = (rebuild.owner.epoch, rebuild.owner.nonce, timeline, *_position_args(positions))
    reply = await functions.call("complete", keys, str(rebuild.incarnation), *args)
    return Done() if isinstance(reply, list) else reply


async def _fill(
    functions: Functions, rebuild: Rebuild, what: str, flat: list[Any], number: int = 0
) -> Done | Trouble:
    keys = functions.keys.all(rebuild.partition, str(rebuild.incarnation))
    args = (rebuild.owner.epoch, rebuild.owner.nonce, what, number, *flat)
    reply = await functions.call("fill", keys, str(rebuild.incarnation), *args)
    return Done() if isinstance(reply, list) else reply


def _position_args(positions: Positions) -> tuple[int | str, ...]:
    usage, entries = positions.usage, positions.entries
    return (usage.offset, usage.fingerprint, entries.offset, entries.fingerprint, positions.log_time_ms)


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
