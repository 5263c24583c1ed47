"""The Stripe adapter against servers that answer what no sane one would: an outcome each time, never an exception."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from billing.recharge.gateway import Conflict, NotFound, Ok, Rejected, Unknown
from billing.recharge.stripe_gateway import StripeGateway
from billing.recharge.stripe_settings import StripeSettings
from billing.webhooks.taken_back import Listed, ListedPage, NotRead, StripeGoneBack

INTENT = (
    '{"id":"pi_1","object":"payment_intent","status":"succeeded","amount":5,"currency":"usd","created":1,'
    '"amount_received":5,"metadata":{"account":"a","episode":"x","timeline":"t"}}'
)


@asynccontextmanager
async def strange_server(raw: bytes, *, then_wait: bool = False) -> AsyncIterator[StripeSettings]:
    """A server that reads a request, sends `raw`, and hangs up or says nothing more."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        if then_wait:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield StripeSettings(f"http://127.0.0.1:{port}", "sk_test_0123456789")
    finally:
        over.set()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def answering(raw: bytes, *, then_wait: bool = False) -> AsyncIterator[StripeGateway]:
    """A gateway whose server is such a one."""
    async with strange_server(raw, then_wait=then_wait) as settings:
        gateway = StripeGateway(settings, deadline_ms=500)
        try:
            yield gateway
        finally:
            await gateway.close()


def http(status: int, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
    return "\r\n".join(lines).encode()


def failed(kind: str, code: str | None = None) -> str:
    return json.dumps({"error": {"type": kind, "message": "m", "code": code}})


UNREADABLE = Unknown("unreadable answer")


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (http(200, "<html>"), Unknown("http_200")),
        (http(200, ""), Unknown("http_200")),
        (http(200, "[]"), UNREADABLE),
        (http(200, "null"), UNREADABLE),
        (http(200, "{}"), UNREADABLE),
        (http(200, INTENT.replace("succeeded", "a_status_of_tomorrow")), UNREADABLE),
        (http(200, INTENT.replace('"amount":5', '"amount":5.5')), UNREADABLE),
        (http(202, INTENT.replace('"amount":5', '"amount":"5"')), UNREADABLE),
        (http(404, "<html>"), Unknown("http_404")),
        (http(404, failed("invalid_request_error")), Rejected("invalid_request_error", "m")),
        (http(404, failed("invalid_request_error", "resource_missing")), NotFound("pi_1")),
        (http(400, failed("invalid_request_error", "a_code")), Rejected("a_code", "m")),
        (http(400, failed("invalid_request_error", "rate_limit")), Unknown("http_400")),
        (http(400, '{"error":"text"}'), Unknown("unreadable answer, AttributeError")),
        (http(402, failed("invalid_request_error", "a_code")), Rejected("a_code", "m")),
        (http(403, failed("invalid_request_error")), Unknown("http_403")),
        (http(409, failed("idempotency_error", "idempotency_key_in_use")), Conflict("conflict")),
        (http(424, failed("api_error")), Unknown("http_424")),
        (http(429, failed("invalid_request_error", "lock_timeout")), Unknown("http_429")),
        (http(500, failed("api_error")), Unknown("http_500")),
        (http(500, failed("api_error"), "Idempotent-Replayed: true"), Unknown("http_500", replayed=True)),
        (http(502, "<html>"), Unknown("http_502")),
        (http(307, "", "Location: /elsewhere"), Unknown("http_307")),
        (b"", Unknown("connection: ServerDisconnectedError")),
        (b"not http\r\n\r\n", Unknown("connection: ClientResponseError")),
        (http(200, INTENT)[:-10], Unknown("connection: ClientPayloadError")),
    ],
)
async def test_r11_a_strange_answer_is_a_typed_outcome(raw: bytes, outcome: object) -> None:
    async with answering(raw) as gateway:
        found = await gateway.confirm("pi_1", idempotency_key="k")
        assert type(found) is type(outcome)
        if not (isinstance(found, Unknown) and found.reason.startswith("connection: ")):  # the class may vary
            assert found == outcome


@pytest.mark.parametrize("raw", [b"", http(200, INTENT)[:40], http(200, INTENT)[:-10]])
async def test_r11_a_server_that_stops_talking_is_waited_for_only_until_the_deadline(raw: bytes) -> None:
    async with answering(raw, then_wait=True) as gateway, asyncio.timeout(5):
        assert await gateway.read("pi_1") == Unknown("timeout")


async def test_a_payment_of_somebody_else_has_no_metadata_of_ours() -> None:
    async with answering(http(200, INTENT)) as gateway:
        outcome = await gateway.read("pi_1")
        assert isinstance(outcome, Ok)
        assert outcome.payment.metadata is None


async def test_nobody_listening_is_unknown() -> None:
    async with answering(b"") as gateway:
        await gateway.read("pi_1")
    try:
        assert isinstance(await gateway.read("pi_1"), Unknown)
    finally:
        await gateway.close()


async def test_an_id_cannot_lead_to_another_address() -> None:
    async with answering(http(404, failed("invalid_request_error", "resource_missing"))) as gateway:
        assert await gateway.read("../customers?x=") == NotFound("../customers?x=")


LISTED = '{"object":"list","data":[{"id":"re_1","status":null}],"has_more":false}'


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (http(200, LISTED), ListedPage((Listed("re_1", "", None),), None)),
        (http(200, '{"object":"list","data":[],"has_more":false}'), ListedPage((), None)),
        (http(200, '{"object":"list","data":[],"has_more":true}'), NotRead("unreadable")),  # more of what?
        (http(200, '{"object":"list","data":[{}],"has_more":false}'), NotRead("unreadable")),
        (http(200, "[]"), NotRead("unreadable")),
        (http(200, "<html>"), NotRead("http_200")),
        (http(400, failed("invalid_request_error", "resource_missing")), NotRead("not_found")),
        (http(401, failed("invalid_request_error")), NotRead("http_401")),
        (http(429, failed("invalid_request_error")), NotRead("http_429")),
        (http(503, ""), NotRead("http_503")),
        (b"", NotRead("http_None")),
    ],
)
async def test_s34_a_list_of_refunds_is_a_page_or_why_there_is_none(raw: bytes, outcome: ListedPage | NotRead) -> None:
    async with strange_server(raw) as settings:
        lists = StripeGoneBack(settings, deadline_ms=500)
        try:
            assert await lists.recent("refunds", 0) == outcome
        finally:
            await lists.close()
