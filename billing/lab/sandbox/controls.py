"""What only a sandbox can be told: faults, forgotten keys, disputes, refunds that come back, and where webhooks go."""

from __future__ import annotations

import time
from typing import TypeVar

import msgspec
from aiohttp import web

from billing.lab.sandbox import disputes, faults, refunds
from billing.lab.sandbox.api import Api
from billing.lab.sandbox.disputes import DisputeOrder
from billing.lab.sandbox.faults import FaultOrder
from billing.lab.sandbox.store import Store
from billing.lab.sandbox.webhooks import Webhooks

T = TypeVar("T")


class _Endpoint(msgspec.Struct, forbid_unknown_fields=True):
    url: str | None


class _Refund(msgspec.Struct, forbid_unknown_fields=True):
    refund: str


def add(application: web.Application, store: Store, api: Api, webhooks: Webhooks) -> None:
    """The routes below /_sandbox."""

    async def show_faults(_request: web.Request) -> web.Response:
        return web.json_response({"faults": faults.pending(store.db)})

    async def add_fault(request: web.Request) -> web.Response:
        order = await _read(request, FaultOrder)
        with store.transaction():
            faults.add(store.db, order)
        return await show_faults(request)

    async def clear_faults(request: web.Request) -> web.Response:
        with store.transaction():
            faults.clear(store.db)
        return await show_faults(request)

    async def forget_keys(_request: web.Request) -> web.Response:
        return web.json_response({"forgotten": api.forget_keys()})

    async def tell(request: web.Request) -> web.Response:
        webhooks.url = (await _read(request, _Endpoint)).url
        return web.json_response({"secret": store.webhook_secret})

    async def dispute(request: web.Request) -> web.Response:
        wanted = await _read(request, DisputeOrder)
        with store.transaction():
            found = disputes.order(store.db, wanted, int(time.time()))
        return web.json_response({"dispute": found}, status=200 if found else 404)

    async def fail_refund(request: web.Request) -> web.Response:
        refund = (await _read(request, _Refund)).refund
        with store.transaction():
            failed = refunds.fail(store.db, refund)
        return web.json_response({"refund": refund}, status=200 if failed else 404)

    application.router.add_get("/_sandbox/faults", show_faults)
    application.router.add_post("/_sandbox/faults", add_fault)
    application.router.add_delete("/_sandbox/faults", clear_faults)
    application.router.add_post("/_sandbox/forget_keys", forget_keys)
    application.router.add_post("/_sandbox/webhooks", tell)
    application.router.add_post("/_sandbox/disputes", dispute)
    application.router.add_post("/_sandbox/failed_refunds", fail_refund)


async def _read(request: web.Request, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except msgspec.MsgspecError as trouble:
        body = {"error": {"type": "invalid_request_error", "message": str(trouble)}}
        raise web.HTTPBadRequest(body=msgspec.json.encode(body), content_type="application/json") from None
