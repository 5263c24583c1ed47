"""The sandbox over HTTP, on this machine only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
from aiohttp import web

from billing.lab.sandbox import faults
from billing.lab.sandbox.api import Api, Reply, Request
from billing.lab.sandbox.faults import FaultOrder
from billing.lab.sandbox.store import Store

HOST = "127.0.0.1"
_SHUTDOWN_SECONDS = 2.0  # how long requests under way may go on after SIGTERM


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that accepts connections."""

    port: int
    runner: web.AppRunner

    async def stop(self) -> None:
        await self.runner.cleanup()


async def start(store: Store, port: int) -> Running:
    """Listen on 127.0.0.1; port 0 takes a free one. Raises OSError where the port is taken."""
    runner = web.AppRunner(
        _application(store, Api(store)),
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
    return Running(runner.addresses[0][1], runner)


def _application(store: Store, api: Api) -> web.Application:
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

    async def show_faults(_request: web.Request) -> web.Response:
        return web.json_response({"faults": faults.pending(store.db)})

    async def add_fault(request: web.Request) -> web.Response:
        try:
            order = msgspec.json.decode(await request.read(), type=FaultOrder)
        except msgspec.MsgspecError as trouble:
            return web.json_response({"error": {"type": "invalid_request_error", "message": str(trouble)}}, status=400)
        with store.transaction():
            faults.add(store.db, order)
        return await show_faults(request)

    async def clear_faults(request: web.Request) -> web.Response:
        with store.transaction():
            faults.clear(store.db)
        return await show_faults(request)

    async def forget_keys(_request: web.Request) -> web.Response:
        return web.json_response({"forgotten": api.forget_keys()})

    application = web.Application()
    application.router.add_get("/health", health)
    application.router.add_get("/_sandbox/faults", show_faults)
    application.router.add_post("/_sandbox/faults", add_fault)
    application.router.add_delete("/_sandbox/faults", clear_faults)
    application.router.add_post("/_sandbox/forget_keys", forget_keys)
    application.router.add_route("*", "/v1/{rest:.*}", v1)
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
