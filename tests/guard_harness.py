"""A balance store of two partitions on a private server, and a guard that looks at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from redis.asyncio import Redis

from billing.balance import admin
from billing.balance.address import StoreAddress, parse_address
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.keys import KeySpace
from billing.devstack.valkey import ValkeyServer
from billing.guard.expected import Expected
from billing.guard.look import LANES
from billing.guard.places import Target
from billing.guard.verdict import GuardVerdict
from billing.guard.watch import LOOK_DEADLINE_S, Guard, Watcher
from billing.ledger.incarnations import Identity
from billing.settings import Topics
from billing.stream.record import Position

TOPICS = Topics("usage.events", "ledger.entries", "billing.tariffs", "billing.signals")
KEYS = KeySpace("guarded", 2)
DETECTED_S = 2.0
"""A fault must be named within this time of a look that begins after it."""

Factory = Callable[..., ValkeyServer]


@dataclass
class Guarded:
    """`server` is where the guard looks: exchange it to let the address lead elsewhere."""

    server: ValkeyServer
    url: str = ""
    identity: Identity = field(default_factory=lambda: Identity("t1", 2, 7))
    expected: Expected = field(default_factory=Expected)

    def __post_init__(self) -> None:
        async def identity() -> Identity:
            return self.identity

        self.guard = Guard(_Where(self), KEYS, TOPICS, identity, expected=self.expected)

    def connect(self) -> Redis:
        return open_client(self.url or self.server.url, timeout_s=LOOK_DEADLINE_S)

    async def filled(self, incarnation: int = 7, offset: int = 0) -> Guarded:
        """Functions loaded and every partition initialised at usage `offset`."""
        positions = admin.Positions(Position(offset, "f" if offset else ""), Position(0, ""))
        async with self.connect() as client:
            functions = Functions(client, KEYS)
            assert await admin.load_functions(functions) is None
            for partition in range(KEYS.partitions):
                answer = await admin.initialise(functions, partition, incarnation, self.identity.timeline, positions)
                assert answer == admin.Done()
        return self

    async def rebuilt(self, incarnation: int, *, finished: bool = True) -> None:
        """Another, empty state under a new incarnation."""
        async with self.connect() as client:
            functions = Functions(client, KEYS)
            for partition in range(KEYS.partitions):
                rebuild = await admin.begin_rebuild(functions, partition, incarnation)
                assert isinstance(rebuild, admin.Rebuild)
                if finished:
                    positions = admin.Positions(Position(0, ""), Position(0, ""))
                    assert await admin.finish_rebuild(functions, rebuild, "t1", positions) == admin.Done()

    async def do(self, *command: str | int) -> object:
        """One command on the server."""
        async with self.connect() as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py

    async def look(self) -> GuardVerdict:
        """One look, in time."""
        began = time.monotonic()
        verdict = await self.guard.look()
        assert time.monotonic() - began < DETECTED_S
        return verdict


class _Where(Target):
    """Where the guarded store is now."""

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded
        self._timeout_s, self._max_connections = LOOK_DEADLINE_S, LANES + 1

    @property
    def _address(self) -> StoreAddress:
        return parse_address(self._guarded.url or self._guarded.server.url)


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 10.0) -> None:
    """Wait for something that only a server knows."""
    async with asyncio.timeout(limit_s):
        while not await condition():  # noqa: ASYNC110  a server has no event to wait for
            await asyncio.sleep(0.02)


async def until_refused(watcher: Watcher) -> tuple[str, ...]:
    """The reasons of the watcher's next unhealthy verdict, which must come in time."""

    async def refused() -> bool:
        return not watcher.verdict().healthy

    await until(refused, DETECTED_S)
    return watcher.verdict().reasons
