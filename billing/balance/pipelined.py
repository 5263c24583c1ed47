"""Calls over one connection to a server, all under way at the same time.

redis-py takes a connection for each call, packs it in Python and reads its reply line by line: 190 us of CPU a call,
here 90. It only makes the connection (address, TLS, password, Sentinel); then commands are written as they come,
and replies belong to them in order. A call that nobody waits for any more is answered to nobody: a deadline costs the
others nothing, and whether a write was done is for positions to say, as after any call without an answer (S01).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from billing.balance.errors import may_lead_elsewhere
from billing.balance.resp import Failed, Incomplete, Unexpected, parse


class Pipelined:
    """One server. Connects when first used, and again when the connection was lost, or has left a call without an
    answer for `silent_s`. Close it when done."""

    def __init__(self, node: Redis, *, silent_s: float) -> None:
        self._node = node
        self._silent_s = silent_s
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[_Wire] | None = None
        self._closed = False

    async def ask(self, command: bytes) -> Any:
        """The reply to a packed command. Raises what the client raises. The deadline is the caller's."""
        wire = self._wire
        if wire is None or not wire.usable(self._silent_s):
            wire = await self._connected()
        return await wire.ask(command)

    def close(self) -> None:
        """Drop the connection: what is under way fails, and so does what is asked from now on."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.drop()

    async def _connected(self) -> _Wire:
        if self._closed:
            raise RedisConnectionError("closed")
        if self._connecting is None:
            if self._wire is not None:
                self._wire.drop()
            self._connecting = asyncio.create_task(self._connect(), name="balance store")
            self._connecting.add_done_callback(self._ended)
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled():  # by `close`
                raise RedisConnectionError("closed") from None
            raise

    async def _connect(self) -> _Wire:
        connection = self._node.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
        try:
            await _greet(connection)
            wire = self._wire = _Wire(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return wire

    def _ended(self, task: asyncio.Task[_Wire]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # seen, though everybody who waited for it may be gone


async def _greet(connection: Any) -> None:
    await connection.connect()
    if await connection.can_read():  # it has ended, or half a push is here, whose rest would be taken for replies
        raise RedisConnectionError("more than the greeting came")


class _Wire(asyncio.Protocol):
    """A connection that redis-py made and greeted, taken over."""

    def __init__(self, connection: Any) -> None:
        self._writer = connection._writer  # kept: later versions of it close their transport when they go
        connection._reader = connection._writer = None  # its own reading of the socket has ended
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._data = b""
        self._transport = self._writer.transport
        self._transport.set_protocol(self)

    def usable(self, silent_s: float) -> bool:
        """Whether it is open and, as far as is known, leads somewhere."""
        oldest_s = self._waiting[0][0] if self._waiting else None
        return not self._transport.is_closing() and (oldest_s is None or self._loop.time() - oldest_s <= silent_s)

    def ask(self, command: bytes) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        if self._transport.is_closing():  # lost before the first call came: uvloop would raise, TLS would say nothing
            future.set_exception(RedisConnectionError("closed by the server"))
            return future
        self._waiting.append((self._loop.time(), future))
        self._transport.write(command)
        return future

    def drop(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._data:
            data = self._data + data
        at = 0
        try:
            while at < len(data):
                reply, at = parse(data, at)
                self._answer(reply)
        except Incomplete:
            pass
        except (Unexpected, ValueError, IndexError):
            self.drop()
            return
        self._data = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        while self._waiting:
            self._answer(RedisConnectionError(type(exc).__name__ if exc else "closed by the server"))

    def _answer(self, reply: Any) -> None:
        if isinstance(reply, Failed):
            reply = BaseParser.parse_error(reply.message)  # type: ignore[no-untyped-call]  # redis-py
            if may_lead_elsewhere(reply):
                self.drop()
        _, future = self._waiting.popleft()
        if future.done():  # its deadline has passed
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)
