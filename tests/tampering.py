"""Changing a balance behind the functions' back, as no production code does."""

from __future__ import annotations

import msgpack
from reconcile_harness import Deployment

from billing.balance.balances import Known


class Tampering:
    """Changes an account's place in the store behind the functions' back, the store's census included."""

    def __init__(self, running: Deployment, known: Known) -> None:
        self._client = running.functions.client
        keys = running.functions.keys.data(running.home(known.account), known.incarnation)
        self._pos, self._acct, self._holds, self._deriving = keys[0], keys[1], keys[2], keys[5]
        self._account = known.account

    async def read(self) -> bytes:
        packed: bytes = await self._client.hget(self._acct, self._account)
        return packed

    async def write(self, packed: bytes) -> None:
        await self._count(0, await self._client.hset(self._acct, self._account, packed))

    async def write_hold(self, session_key: str, packed: bytes) -> None:
        assert await self._client.hset(self._holds, session_key, packed) == 0, "it has no such hold"

    async def remove(self) -> None:
        await self._count(0, -await self._client.hdel(self._acct, self._account))

    async def make_unknown(self, reason: str, offset: int) -> None:
        packed = msgpack.packb([reason, offset, 1, offset])
        await self._count(4, await self._client.hset(self._deriving, self._account, packed))

    async def _count(self, member: int, added: int) -> None:
        census = [int(part) for part in (await self._client.hget(self._pos, "census")).split()]
        census[member] += added
        await self._client.hset(self._pos, "census", " ".join(map(str, census)))
