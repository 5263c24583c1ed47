"""The balance store's positions over a plain connection: a client library would cost five times the look itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

DEADLINE_SECONDS = 10.0


class RawPositions:
    """`look` answers the usage offset of each key, read in one round trip."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keys: Sequence[str]) -> None:
        self._reader = reader
        self._writer = writer
        self._count = len(keys)
        self._question = b"".join(_command("HGET", key, "usage_offset") for key in keys)

    async def look(self) -> list[int]:
        """Positions now. Raises ValueError for an answer that is none."""
        self._writer.write(self._question)
        answer = b""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while answer.count(b"\r\n") < 2 * self._count:  # each a length and an offset
                part = await self._reader.read(2**16)
                answer += part
                if not part or b"-" in answer:  # a closed connection, nothing at a key ($-1), an error
                    raise ValueError("the store did not answer with offsets")
        return [int(offset) for offset in answer.split(b"\r\n")[1::2]]


@asynccontextmanager
async def raw_positions(url: str, keys: Sequence[str]) -> AsyncIterator[RawPositions]:
    """Connected to the server of `url` (no password, database 0: the benchmark's own)."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield RawPositions(reader, writer, keys)
    finally:
        writer.close()
        await writer.wait_closed()


def _command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
