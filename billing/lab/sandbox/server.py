"""The sandbox over HTTP, on this machine only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from billing.lab.sandbox import controls
from billing.lab.sandbox.api import Api, Reply, Request
from billing.lab.sandbox.store import Store
from billing.lab.sandbox.webhooks import Webhooks

HOST = "127.0.0.1"
_SHUTDOWN_SECONDS = 2.0  # how long requests under way may go on after SIGTERM


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that accepts connections."""

    port: int
    runner: web.AppRunner
    telling: asyncio.Task[None]

    async def stop(self) -> None:
        self.telling.cancel()
        await asyncio.wait({self.telling})
        await self.runner.cleanup()


async def start(store: Store, port: int, *, webhook_url: str | None = None) -> Running:
    """Listen on 127.0.0.1; port 0 takes a free one. What happens is told to `webhook_url`. Raises OSError where the
    port is taken."""
    webhooks = Webhooks(store, webhook_url)
    runner = web.AppRunner(
        _application(store, Api(store), webhooks),
        access_log=None,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        handler_cancellation=False,  # what has begun goes on, whether or not the client still listens
    )
    await runner.setup()
    site = web.TCPSite(runner, HOST, port)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    telling = asyncio.create_task(webhooks.run(), name="webhooks")
    return Running(runner.addresses[0][1], runner, telling)


def _application(store: Store, api: Api, webhooks: Webhooks) -> web.Application:
    async def v1(request: web.Request) -> web.StreamResponse:
        body = await request.text() if request.method == "POST" else request.query_string
        incoming = Request(
            method=request.method,
            path=request.path,
            encoded=body,
            authorization=request.headers.get("Authorization", ""),
            idempotency_key=request.headers.get("Idempotency-Key"),
            api_version=request.headers.get("Stripe-Version", ""),
        )
        work = api.begin(incoming)
        if isinstance(work, Reply):
            return _respond(request, incoming, work)
        try:
            await asyncio.sleep(work.delay_seconds)
        except asyncio.CancelledError:
            api.abandon(work)
            raise
        return _respond(request, incoming, api.finish(work))

    async def health(_request: web.Request) -> web.Response:
        store.db.execute("SELECT 1")
        return web.json_response({"status": "ok"})

    application = web.Application()
    application.router.add_get("/health", health)
    application.router.add_route("*", "/v1/{rest:.*}", v1)
    controls.add(application, store, api, webhooks)
    return application


def _respond(request: web.Request, incoming: Request, reply: Reply) -> web.StreamResponse:
    if reply.cut and request.transport is not None:
        request.transport.abort()
    headers = {"Request-Id": reply.request_id}
    if incoming.idempotency_key is not None and incoming.method == "POST":
        headers["Idempotency-Key"] = incoming.idempotency_key
    if reply.original_request is not None:
        headers |= {"Idempotent-Replayed": "true", "Original-Request": reply.original_request}
    return web.Response(
        status=reply.answer.status, body=reply.answer.body, headers=headers, content_type="application/json"
    )
