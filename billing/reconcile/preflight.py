"""May the balance store be rebuilt now? Looked at before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import methodcaller
from typing import cast

import asyncpg

from billing.balance.admin import load_functions
from billing.balance.calls import Functions
from billing.balance.client import UnsupportedServer, check_server, primaries
from billing.balance.errors import CALL_ERRORS
from billing.ledger.database import Pool, lease
from billing.ledger.history import forgotten, suspect
from billing.ledger.incarnations import Identity
from billing.ledger.snapshots import PartitionPosition, positions
from billing.reconcile.ledger_side import LedgerSide
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.sink import ReadOnly, Unavailable, Uninitialised
from billing.stream.verify import Mismatch, check_position


class Refusal(Exception):
    """Why a rebuild does not take place, or ended early: one line for the operator."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a rebuild stands on. `newest` is the newest incarnation that the store has seen, 0 for none."""

    identity: Identity
    newest: int


async def check_ground(
    ledger: LedgerSide, pool: Pool, reader: LogReader, functions: Functions, settings: Settings, *, moving: bool = False
) -> Ground:
    """Raises Refusal with the first thing that is in the way. `moving`: as part of a migration to other partitions."""
    try:
        identity = await ledger.identity()
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        identity = None
    if identity is None:
        raise Refusal("the ledger is not migrated: run `billing migrate`")
    if identity.moving_to is not None and not moving:
        raise Refusal(
            f"a migration to {identity.moving_to} partitions is not complete, and it ends with a rebuild: run"
            f" `billing partitions migrate --to {identity.moving_to} --apply` again"
        )
    partitions = identity.moving_to if moving and identity.moving_to is not None else identity.partitions
    if partitions != settings.partitions:
        raise Refusal(f"the ledger was made for {partitions} partitions, not {settings.partitions}")
    at = await positions(pool)
    _check_halts(at)
    await _check_logs(reader, settings, at)
    await _check_history(reader, pool, settings)
    await _check_store(functions)
    return Ground(identity, await _newest_incarnation(functions, settings.partitions))


def _check_halts(at: Mapping[int, PartitionPosition]) -> None:
    for partition, found in at.items():
        if found.halted is not None:
            raise Refusal(f"partition {partition} of the ledger is halted: {found.halted}")


async def _check_logs(reader: LogReader, settings: Settings, at: Mapping[int, PartitionPosition]) -> None:
    """A view rebuilt for another log than the one that the ledger was settled from would halt at once."""
    topics = settings.topics
    for topic, wanted in (
        (topics.usage, settings.partitions),
        (topics.entries, settings.partitions),
        (topics.tariffs, 1),
    ):
        count = await reader.partition_count(topic)
        if count != wanted:
            raise Refusal(f"topic {topic} has {count or 'no'} partitions, {wanted} expected")
    for partition, found in at.items():
        verdict = await check_position(reader, topics.usage, partition, found.position)
        if isinstance(verdict, Mismatch):
            raise Refusal(f"the ledger's position does not fit {topics.usage}-{partition}: {verdict.reason}")


async def _check_history(reader: LogReader, pool: Pool, settings: Settings) -> None:
    """A view rebuilt from a ledger that forgot entries would forget them too (S28)."""
    async with lease(pool) as connection:
        for partition in range(settings.partitions):
            why = await forgotten(connection, reader, settings.topics.entries, partition)
            if why is not None:
                await suspect(pool, why)
                raise Refusal(f"the ledger was restored to an earlier time ({why}): see `billing ledger restored`")


async def _check_store(functions: Functions) -> None:
    """The right kind of server, which has our functions; they are loaded where it has none (it was wiped)."""
    try:
        await check_server(functions.client)
        nodes = (await primaries(functions.client)).values()
        there = [bool(await node.function_list(library=functions.library)) for node in nodes]
    except UnsupportedServer as error:
        raise Refusal(str(error)) from error
    except CALL_ERRORS as error:
        raise Refusal(f"the balance store does not answer: {type(error).__name__}") from error
    if not all(there):
        trouble = await load_functions(functions)
        if trouble is not None:
            raise Refusal(f"the functions cannot be loaded into the balance store: {trouble.reason}")


async def _newest_incarnation(functions: Functions, partitions: int) -> int:
    """A store that was restored from elsewhere may have numbers that this ledger has not minted yet."""
    newest = 0
    for partition in range(partitions):
        key = functions.keys.meta(partition)
        values = await functions.at(key, methodcaller("hmget", key, ["incarnation", "building"]))
        if isinstance(values, ReadOnly | Unavailable | Uninitialised):
            raise Refusal(f"the balance store does not answer: {values.reason}")
        for value in cast("list[bytes | None]", values):
            if value and value.isdigit():
                newest = max(newest, int(value))
    return newest
