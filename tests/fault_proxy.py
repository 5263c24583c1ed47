"""A TCP proxy that misbehaves when told to: cuts replies that the server has sent, goes silent, leads elsewhere."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65_536


class FaultProxy:
    """On loopback before a server at `target` port; see `fault_proxy`."""

    def __init__(self, target: int, seed: int = 0) -> None:
        self.port = 0
        self.cut_replies = 0
        self.cut_share = 0.0
        """Of all pieces that the server sends: dropped, and the connection with them. The server has done what it was
        asked by then."""
        self._target = target
        self._rng = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        """As the setting of a balance store has it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def stall(self) -> None:
        """Nothing more comes from the server; connections stay open."""
        self._flowing.clear()

    def lead_to(self, target: int) -> None:
        """Later connections go to another server; those that are open are cut."""
        self._target = target
        self._flowing.set()
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, to = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, to}
        self._open |= pair
        ways = [asyncio.create_task(self._pass(reader, to)), asyncio.create_task(self._return(there, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        self._open -= pair
        for end in pair:
            end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                writer.write(piece)
                await writer.drain()

    async def _return(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                if self._rng.random() < self.cut_share:
                    self.cut_replies += 1
                    return
                writer.write(piece)
                await writer.drain()


@asynccontextmanager
async def fault_proxy(target: int, seed: int = 0) -> AsyncIterator[FaultProxy]:
    """Listening until the end of the block."""
    proxy = FaultProxy(target, seed)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.lead_to(target)
        await asyncio.sleep(0)
        await server.wait_closed()
