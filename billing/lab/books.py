"""Both books as they stand, read plainly: every account, session and dead letter, past the pipeline's own code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import asyncpg
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from billing.balance.client import Client, node_of, open_client
from billing.balance.keys import DATA_KEYS, split_session_key
from billing.balance.records import AccountRecord, HoldRecord, UnknownRecord
from billing.lab.expected import SessionKey
from billing.settings import Settings

READ_TIMEOUT_SECONDS = 60.0
Name = TypeVar("Name")

USAGE_TOPIC = "usage.events"  # positions and dead letters name topics without the namespace


@dataclass(frozen=True, slots=True)
class Store:
    """Redis. `unknown` maps accounts without a balance to the reason; money in micro-units."""

    accounts: dict[str, AccountRecord]
    unknown: dict[str, str]
    holds: dict[SessionKey, HoldRecord]


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A dead letter's verdict and bytes."""

    reason: str
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """PostgreSQL. `balances` and `used` in micro-units per account; `sums` is what all postings of a currency add up
    to; `findings` are the sessions with a finding, with its kind."""

    balances: dict[str, int]
    used: dict[str, int]
    settled: dict[SessionKey, int]
    dead_letters: list[DeadLetterRow]
    findings: list[tuple[str, SessionKey]]
    sums: dict[str, int]


class Books:
    """Connections to both stores; see `open_books`."""

    def __init__(self, settings: Settings, store: Client, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._partitions = settings.partitions
        self._keys = settings.key_space
        self._store = store
        self.pool = pool

    async def inflight_positions(self) -> dict[int, int]:
        """Partition to the next offset of usage that Redis will take; 0 before the first."""
        return await self._store_positions("usage_offset")

    async def entries_positions(self) -> dict[int, int]:
        """The same of the ledger's entries."""
        return await self._store_positions("entries_offset")

    async def _store_positions(self, field: str) -> dict[int, int]:
        asked = {partition: (keys["pos"], field) for partition, keys in (await self._data_keys()).items()}
        offsets = await self._fields(asked)
        return {partition: int(offsets.get(partition) or 0) for partition in range(self._partitions)}

    async def postflight_positions(self) -> dict[int, int]:
        """Partition to the next offset of usage that the ledger will take."""
        rows = await self.pool.fetch("select partition, next_offset from positions where topic = $1", USAGE_TOPIC)
        return {row["partition"]: row["next_offset"] for row in rows}

    async def accounts(self, home: Mapping[str, int]) -> dict[str, AccountRecord]:
        """The given accounts (with their home partitions) as Redis has them; those that it has not are missing."""
        data = await self._data_keys()
        asked = {name: (data[partition]["acct"], name) for name, partition in home.items() if partition in data}
        return {a: AccountRecord.unpack(packed) for a, packed in (await self._fields(asked)).items() if packed}

    async def deriving(self) -> int:
        """How many accounts are unknown in Redis until they are derived; those beyond its numbers are not counted."""
        waiting = 0
        for keys in (await self._data_keys()).values():
            reasons = [UnknownRecord.unpack(packed).reason for packed in (await self._hash(keys["deriving"])).values()]
            waiting += sum(reason != "overflow" for reason in reasons)
        return waiting

    async def read_store(self) -> Store:
        """All of Redis; consistent only while nothing is being applied."""
        store = Store({}, {}, {})
        for keys in (await self._data_keys()).values():
            unknown = await self._hash(keys["deriving"])
            store.unknown.update((a.decode(), UnknownRecord.unpack(u).reason) for a, u in unknown.items())
            for account, packed in (await self._hash(keys["acct"])).items():
                if account not in unknown:
                    store.accounts[account.decode()] = AccountRecord.unpack(packed)
            for session, packed in (await self._hash(keys["sess"])).items():
                kind, account_id, session_id = split_session_key(session.decode())
                store.holds[SessionKey(account_id, kind, session_id)] = HoldRecord.unpack(packed)
        return store

    async def read_ledger(self) -> Ledger:
        """All of PostgreSQL, in one snapshot."""
        async with self.pool.acquire(timeout=10) as c, c.transaction(isolation="repeatable_read", readonly=True):
            balances = await c.fetch("select account_id, credit_micros, used_micros from balances")
            usage = await c.fetch("select account_id, kind, session_id, amount_micros from usage")
            dead = await c.fetch("select reason, key, value from dead_letters where topic = $1", USAGE_TOPIC)
            findings = await c.fetch("select kind, account_id, session_kind, session_id from findings")
            sums = await c.fetch("select currency, sum(amount_micros)::bigint as total from postings group by currency")
        return Ledger(
            balances={row["account_id"]: row["credit_micros"] - row["used_micros"] for row in balances},
            used={row["account_id"]: row["used_micros"] for row in balances},
            settled={SessionKey(r["account_id"], r["kind"], r["session_id"]): r["amount_micros"] for r in usage},
            dead_letters=[DeadLetterRow(row["reason"], row["key"], row["value"]) for row in dead],
            findings=[
                (r["kind"], SessionKey(r["account_id"] or "", r["session_kind"] or "", r["session_id"] or ""))
                for r in findings
            ],
            sums={row["currency"]: row["total"] for row in sums},
        )

    async def _hash(self, key: str) -> dict[bytes, bytes]:
        node = await node_of(self._store, key)
        return cast("dict[bytes, bytes]", await node.hgetall(key))  # decode_responses is off

    async def _fields(self, asked: Mapping[Name, tuple[str, str]]) -> dict[Name, bytes | None]:
        """Fields of hashes, by the caller's names for them: one round trip for each server."""
        pipes: dict[Redis, tuple[Pipeline, list[Name]]] = {}
        for name, (key, field) in asked.items():
            node = await node_of(self._store, key)
            pipe, names = pipes.setdefault(node, (node.pipeline(transaction=False), []))
            pipe.hget(key, field)
            names.append(name)
        found: dict[Name, bytes | None] = {}
        async with asyncio.timeout(READ_TIMEOUT_SECONDS):
            for pipe, names in pipes.values():
                found.update(zip(names, await pipe.execute(), strict=True))
        return found

    async def _data_keys(self) -> dict[int, dict[str, str]]:
        """Partition to its data keys by their short names, for the partitions that Redis has."""
        found = await self._fields({p: (self._keys.meta(p), "incarnation") for p in range(self._partitions)})
        return {
            partition: dict(zip(DATA_KEYS, self._keys.data(partition, number.decode()), strict=True))
            for partition, number in sorted(found.items())
            if number is not None
        }


@asynccontextmanager
async def open_books(settings: Settings) -> AsyncIterator[Books]:
    """Both stores, closed afterwards."""
    store = open_client(settings.redis_url, timeout_s=READ_TIMEOUT_SECONDS)
    try:
        async with asyncpg.create_pool(
            settings.postgres_dsn, min_size=0, max_size=2, timeout=10, command_timeout=READ_TIMEOUT_SECONDS
        ) as pool:
            yield Books(settings, store, pool)
    finally:
        await store.aclose()
