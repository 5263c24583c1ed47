"""An HTTP application on an address, for as long as it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

BACKLOG = 128  # connections that wait to be accepted, aiohttp's default


class CannotListen(Exception):
    """The address is in use, or none of this machine; one line."""


@asynccontextmanager
async def listening(
    app: web.Application, host: str, port: int, *, shutdown_s: float, backlog: int = BACKLOG
) -> AsyncIterator[int]:
    """Listen, and answer the port; at the end, requests in hand are answered first, for at most `shutdown_s`. Raises
    CannotListen."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_s)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=backlog)
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
