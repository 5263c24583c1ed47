"""The endpoint over HTTP. What it answers decides whether the gateway sends the webhook again: 2xx ends it, 4xx was
never genuine, 503 asks for another try. Bodies are never logged (R12)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import structlog
from aiohttp import web

from billing.ledger.trouble import Trouble, describe, trouble_of
from billing.listening import listening
from billing.webhooks import metrics
from billing.webhooks.notices import Notices
from billing.webhooks.signed import read_notice

log = structlog.get_logger(__name__)

PATH = "/v1/webhooks/stripe"
LARGEST_BYTES = 256 * 1024
READ_S = 5.0  # for a body to arrive
HANDLE_S = 25.0  # a call of the gateway and some of the ledger
AT_ONCE = 16  # handled; more wait their turn
WAITING = 256  # read and waiting; more are asked to come again
SHUTDOWN_S = 5.0
_AGAIN = {"Retry-After": "5"}


class Endpoint:
    """One endpoint. `now` gives seconds since 1970, for the age of signatures alone."""

    def __init__(self, notices: Notices, secrets: Sequence[str], *, now: Callable[[], float] = time.time) -> None:
        self._notices = notices
        self._secrets = tuple(secrets)
        self._now = now
        self._room = asyncio.Semaphore(AT_ONCE)
        self._in_hand = 0

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=LARGEST_BYTES)
        app.router.add_post(PATH, self._receive)
        return app

    async def _receive(self, request: web.Request) -> web.Response:
        if self._in_hand >= WAITING:
            return _answer(503, "busy")
        self._in_hand += 1
        try:
            async with asyncio.timeout(READ_S):
                payload = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _answer(413, "too_large")
        except TimeoutError:
            return _answer(408, "too_slow")
        else:
            return await self._handle(payload, request.headers.get("Stripe-Signature"))
        finally:
            self._in_hand -= 1

    async def _handle(self, payload: bytes, signature: str | None) -> web.Response:
        notice = read_notice(payload, signature, self._secrets, self._now())
        if isinstance(notice, str):
            log.warning("webhook.refused", reason=notice)
            return _answer(400, notice)
        try:
            async with asyncio.timeout(HANDLE_S), self._room:
                outcome = await self._notices.handle(notice)
        except Exception as error:
            if trouble_of(error) is Trouble.BUG and not isinstance(error, TimeoutError):
                log.exception("webhook.failed", kind=notice.kind)
            else:
                log.warning("webhook.waiting", kind=notice.kind, error=describe(error))
            return _answer(503, "again")
        return _answer(503 if outcome == "again" else 200, outcome)


def _answer(status: int, outcome: str) -> web.Response:
    metrics.REQUESTS.labels(outcome).inc()
    return web.json_response({"outcome": outcome}, status=status, headers=_AGAIN if status == 503 else None)


def serving(endpoint: Endpoint, host: str, port: int) -> AbstractAsyncContextManager[int]:
    """Listen, and answer the port; see `listening`. Raises CannotListen."""
    return listening(endpoint.application(), host, port, shutdown_s=SHUTDOWN_S)
