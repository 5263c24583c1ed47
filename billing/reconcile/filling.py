"""Writing a new incarnation of the balance store. Every step is fenced, may be repeated, and waits a bounded time for
a store that is away; anything else that goes wrong ends the rebuild as a Refusal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from billing.balance import admin
from billing.balance.admin import Done, NotNew, Positions, Rebuild
from billing.balance.calls import Functions
from billing.balance.records import AccountRecord, HoldRecord
from billing.reconcile.holds import Session
from billing.reconcile.preflight import Refusal
from billing.stream.backoff import Backoff
from billing.stream.sink import Fenced, ReadOnly, Unavailable

STORE_DEADLINE_S = 30.0
CHUNK = 1_000

Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Filling:
    """One rebuild's writes, by partition."""

    def __init__(self, functions: Functions, incarnation: int) -> None:
        self._functions = functions
        self._incarnation = incarnation
        self._begun: dict[int, Rebuild] = {}

    async def begin(self, partition: int) -> None:
        """Fence the partition's owner; its balances are Unknown(rebuilding) from here on."""
        answer = await _insist(partial(admin.begin_rebuild, self._functions, partition, self._incarnation))
        if isinstance(answer, NotNew):
            raise Refusal(f"partition {partition} has met incarnation {answer.newest} meanwhile: run it again")
        if not isinstance(answer, Rebuild):
            raise _unexpected(partition, answer)
        self._begun[partition] = answer

    async def accounts(self, partition: int, records: Mapping[str, AccountRecord], usage_offset: int) -> None:
        """Write account records as of a position in the usage log."""
        begun = self._begun[partition]
        await self._done(partition, partial(admin.write_accounts, self._functions, begun, records, usage_offset))

    async def settled(self, partition: int, sessions: Sequence[Session], log_time_ms: int) -> None:
        """Remember sessions settled in the dedupe generation of `log_time_ms`."""
        begun = self._begun[partition]
        await self._done(partition, partial(admin.write_settled, self._functions, begun, sessions, log_time_ms))

    async def holds(self, partition: int, holds: Mapping[Session, HoldRecord], usage_offset: int) -> None:
        """Write open holds, all of the partition's, and their sums into the accounts' records."""
        begun = self._begun[partition]
        await self._done(partition, partial(admin.write_holds, self._functions, begun, holds))
        held: dict[str, int] = {}
        for (_, account, _), hold in holds.items():
            held[account] = held.get(account, 0) + hold.amount
        for accounts in chunks(list(held)):
            records = await self._written(partition, accounts)
            for account, record in records.items():
                record.held = held[account]
            await self.accounts(partition, records, usage_offset)

    async def finish(self, partition: int, timeline: str, positions: Positions) -> None:
        """Put the new incarnation of the partition into force."""
        begun = self._begun[partition]
        await self._done(partition, partial(admin.finish_rebuild, self._functions, begun, timeline, positions))

    async def _written(self, partition: int, accounts: Sequence[str]) -> dict[str, AccountRecord]:
        """Records that `accounts` wrote before."""
        key = self._functions.keys.data(partition, str(self._incarnation))[1]
        packed = await _insist(lambda: self._functions.at(key, lambda node: node.hmget(key, list(accounts))))
        if not isinstance(packed, list) or None in packed:
            raise Refusal(f"partition {partition} lost accounts while it was filled: run it again")
        return {account: AccountRecord.unpack(raw) for account, raw in zip(accounts, packed, strict=True)}

    async def _done(self, partition: int, step: Callable[[], Awaitable[object]]) -> None:
        answer = await _insist(step)
        if not isinstance(answer, Done):
            raise _unexpected(partition, answer)


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """`items` in slices of at most CHUNK."""
    for first in range(0, len(items), CHUNK):
        yield items[first : first + CHUNK]


async def _insist(step: Callable[[], Awaitable[Answer]]) -> Answer:
    """The step's answer, asked again for at most STORE_DEADLINE_S while the store is away."""
    backoff, until = Backoff(), time.monotonic() + STORE_DEADLINE_S
    while True:
        answer = await step()
        if not isinstance(answer, ReadOnly | Unavailable) or time.monotonic() >= until:
            return answer
        await asyncio.sleep(backoff.next_seconds())


def _unexpected(partition: int, answer: object) -> Refusal:
    if isinstance(answer, Fenced):
        return Refusal(f"partition {partition} was taken over by another rebuild, or wiped, meanwhile: run it again")
    reason = getattr(answer, "reason", type(answer).__name__)
    return Refusal(f"partition {partition} of the balance store: {reason}")
