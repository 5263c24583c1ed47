"""The service over HTTP: routes, problem details (RFC 9457), and the socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web

from billing.admission import metrics
from billing.admission.decide import UnknownAccount
from billing.admission.request import Malformed, parse_account, parse_query
from billing.admission.service import Admission
from billing.listening import listening
from schemas.admission import Problem
from schemas.openapi import AUTHORIZE_PATH, document

log = structlog.get_logger(__name__)

SHUTDOWN_S = 5.0
BACKLOG = 1024
_encode = msgspec.json.Encoder().encode
_CODES = {404: "not_found", 405: "method_not_allowed"}
_FRESH = {"Cache-Control": "no-store"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(admission: Admission) -> web.Application:
    """The routes of one service."""
    openapi = _encode(document())

    async def authorize(request: web.Request) -> web.Response:
        account = request.match_info["id"]
        wrong = parse_account(account)
        if wrong is not None:
            return _malformed(wrong)
        query = parse_query(_parameters(request))
        if isinstance(query, Malformed):
            return _malformed(query)
        answer = await admission.authorize(account, query)
        if isinstance(answer, UnknownAccount):
            return _problem(404, "unknown_account", detail="there is no such account")
        return web.Response(body=_encode(answer), content_type="application/json", headers=_FRESH)

    async def describe(_request: web.Request) -> web.Response:
        return web.Response(body=openapi, content_type="application/json")

    app = web.Application(middlewares=[_problems])
    app.router.add_get(AUTHORIZE_PATH, authorize, allow_head=False)
    app.router.add_get("/openapi.json", describe, allow_head=False)
    return app


def serving(admission: Admission, host: str, port: int) -> AbstractAsyncContextManager[int]:
    """Listen, and answer the port; see `listening`. Raises CannotListen."""
    return listening(application(admission), host, port, shutdown_s=SHUTDOWN_S, backlog=BACKLOG)


def _parameters(request: web.Request) -> dict[str, list[str]]:
    query = request.query
    return {name: query.getall(name) for name in query}


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal and every bug as problem details."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        headers = {name: refusal.headers[name] for name in ("Allow",) if name in refusal.headers}
        return _problem(refusal.status, _CODES.get(refusal.status, "refused"), headers=headers)
    except Exception:
        log.exception("request.failed", path=request.path)
        return _problem(500, "internal_error")


def _malformed(wrong: Malformed) -> web.Response:
    return _problem(400, "malformed_request", detail=f"{wrong.field}: {wrong.problem}", field=wrong.field)


def _problem(
    status: int,
    code: str,
    *,
    detail: str | None = None,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    problem = msgspec.convert(
        {"title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail, "field": field}, Problem
    )
    metrics.PROBLEMS.labels(code).inc()
    return web.Response(
        body=_encode(problem),
        status=status,
        content_type="application/problem+json",
        headers={**_FRESH, **(headers or {})},
    )
