"""Which relay publishes what: session-level advisory locks on a connection that does nothing else.

The locks die with the connection, on the server's side too, and the server ends a connection that has asked nothing for
SILENT_S: a relay that is stopped, or cut off without a word, keeps its partitions no longer than that. A relay whose
connection has died may overlap with its successor for a moment: that repeats entries and heartbeats, and readers ignore
repeats.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from billing.ledger.database import connect
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.queries import query

QUERY_TIMEOUT_S = 10.0
SILENT_S = 15  # of its owner, who asks every second, or after the 5 s that a partition may take to be given up


class OtherPartitions(Exception):
    """The ledger has accounts for another number of partitions than this process was started for (S16)."""


class Ownership:
    """Open with `open`. `lost` is set when the connection has died: stop at once, open another one."""

    def __init__(self, connection: asyncpg.Connection[Any], partitions: int) -> None:
        self._connection = connection
        self._partitions = partitions
        self.owned: set[int] = set()
        self.owns_catalogue = False
        self.lost = asyncio.Event()
        self.woken = asyncio.Event()

    @staticmethod
    async def open(dsn: str, partitions: int) -> Ownership:
        """Connect, be counted as a relay, listen for new rows. Raises what asyncpg raises, OtherPartitions."""
        connection = await connect(dsn, command_timeout_s=QUERY_TIMEOUT_S, application_name="billing-relay-locks")
        ownership = Ownership(connection, partitions)
        try:
            await connection.execute(query("relay.not_silent"), str(SILENT_S * 1000))
            connection.add_termination_listener(lambda _connection: ownership.lost.set())
            await connection.add_listener("billing_outbox", lambda *_notice: ownership.woken.set())
            await ownership._join()
        except BaseException:
            connection.terminate()
            raise
        return ownership

    async def _join(self) -> None:
        if not await self._connection.fetchval(query("relay.join_relays"), LOCK_SPACE, Lock.RELAY_MEMBER):
            raise OSError("accounts are being moved to other partitions")  # for a moment: tried again
        # looked at after joining: no account moves while there is a relay
        there = await self._connection.fetchval(query("accounts.partitions"))
        if there != self._partitions:
            raise OtherPartitions(f"the ledger was made for {there} partitions, not {self._partitions}")

    async def rebalance(self) -> set[int]:
        """Take free partitions up to a fair share; returns those to give up because others have too few. Publishing
        them must have stopped before `release` is called."""
        relays = await self._connection.fetchval(query("relay.count_relays"), LOCK_SPACE, Lock.RELAY_MEMBER)
        share = -(-self._partitions // max(1, relays))
        for partition in range(self._partitions):
            if len(self.owned) >= share:
                break
            if partition not in self.owned and await self._try(Lock.RELAY_PARTITION + partition):
                self.owned.add(partition)
        if not self.owns_catalogue:
            self.owns_catalogue = await self._try(Lock.RELAY_CATALOGUE)
        return set(sorted(self.owned)[share:])

    async def release(self, partition: int) -> None:
        """Let a partition go to another relay."""
        self.owned.discard(partition)
        await self._connection.fetchval(query("relay.unlock"), LOCK_SPACE, Lock.RELAY_PARTITION + partition)

    async def close(self) -> None:
        """Drop the connection, and every lock with it."""
        try:
            await self._connection.close(timeout=2)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._connection.terminate()

    async def _try(self, lock: int) -> bool:
        got: bool = await self._connection.fetchval(query("relay.try_lock"), LOCK_SPACE, lock)
        return got
