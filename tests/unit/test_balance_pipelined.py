"""A connection taken over from redis-py that ends at a bad moment: each call has an answer, and at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from billing.balance.pipelined import Pipelined

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
PING = b"*1\r\n$4\r\nPING\r\n"


class Greeted:
    """What redis-py hands over: a connection whose greeting is done. `leave` is what the server does then, `left` what
    of its bytes is still in the reader."""

    def __init__(self, leave: Callable[[socket.socket], None], left: bytes = b"") -> None:
        self._leave = leave
        self._left = left
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.connection_pool = self

    def make_connection(self) -> Greeted:
        return self

    async def connect(self) -> None:
        ours, self.server = socket.socketpair()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self.server.send(b"+OK\r\n")
        await self._reader.readline()
        self._reader.feed_data(self._left)
        self._leave(self.server)

    async def can_read(self) -> bool:
        assert self._reader is not None
        return self._reader.at_eof() or bool(self._reader._buffer)  # type: ignore[attr-defined]

    async def disconnect(self, nowait: bool) -> None:
        assert self._writer is not None
        self._writer.close()


async def ask(leave: Callable[[socket.socket], None], left: bytes = b"") -> Any:
    node: Any = Greeted(leave, left)
    pipe = Pipelined(node, silent_s=5.0)
    try:
        async with asyncio.timeout(1.0):
            return await pipe.ask(PING)
    finally:
        pipe.close()
        await asyncio.sleep(0)
        node.server.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_s05_a_server_that_closes_right_after_its_greeting_is_no_connection(loop: Any) -> None:
    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(RedisConnectionError):
        runner.run(ask(lambda server: server.close()))


@pytest.mark.parametrize("loop", LOOPS)
def test_s01_half_a_push_behind_the_greeting_is_not_taken_for_a_reply(loop: Any) -> None:
    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(RedisConnectionError, match="greeting"):
        runner.run(ask(lambda server: None, left=b">1\r\n$3\r\nMO"))


@pytest.mark.parametrize("loop", LOOPS)
def test_s39_a_call_after_the_end_is_refused(loop: Any) -> None:
    async def scenario() -> None:
        node: Any = Greeted(lambda server: None)
        pipe = Pipelined(node, silent_s=5.0)
        pipe.close()
        with pytest.raises(RedisConnectionError, match="closed"):
            await pipe.ask(PING)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
