"""What Stripe's answers mean: bodies to the port's values, the SDK's exceptions to the port's outcomes. Pure.

What raises what (stripe 16.1, `_api_requestor.specific_v1_api_error`):
400, 404 InvalidRequestError, or IdempotencyError by the error's type · 401 AuthenticationError · 402 CardError ·
403 PermissionError · 429 RateLimitError · any other status, 409 and 5xx included, and a body that is no JSON:
APIError · no answer: APIConnectionError, from `billing.recharge.stripe_http`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import stripe

from billing.recharge.declines import decline
from billing.recharge.gateway import (
    Conflict,
    Decline,
    Declined,
    Failure,
    Metadata,
    NotFound,
    Ok,
    Page,
    Payment,
    PaymentStatus,
    Refund,
    RefundStatus,
    Rejected,
    Unknown,
)

_REASON_LENGTH = 200  # an error's message may quote parameters at any length


class _Error(msgspec.Struct):
    type: str = ""
    code: str | None = None
    decline_code: str | None = None
    advice_code: str | None = None
    message: str = ""
    payment_intent: _Intent | None = None


class _Intent(msgspec.Struct):
    id: str
    status: PaymentStatus
    amount: int
    currency: str
    created: int
    amount_received: int = 0
    customer: str | None = None
    metadata: dict[str, str] = {}
    last_payment_error: _Error | None = None


class _Failed(msgspec.Struct):
    error: _Error


class _List(msgspec.Struct):
    data: list[_Intent]
    has_more: bool


class _Refund(msgspec.Struct):
    id: str
    status: RefundStatus
    amount: int
    currency: str
    created: int
    payment_intent: str


class _Identified(msgspec.Struct):
    id: str


def payment(body: str) -> Payment:
    """A PaymentIntent. Raises msgspec.MsgspecError where it is not what is documented."""
    return _payment(msgspec.json.decode(body, type=_Intent))


def page(body: str) -> Page:
    """A list of PaymentIntents; raises as `payment`."""
    answer = msgspec.json.decode(body, type=_List)
    last = answer.data[-1].id if answer.data and answer.has_more else None
    return Page(tuple(_payment(intent) for intent in answer.data), last)


def refund(body: str) -> Refund:
    """A Refund; raises as `payment`."""
    r = msgspec.json.decode(body, type=_Refund)
    return Refund(r.id, r.payment_intent, r.status, r.amount, r.currency.upper(), r.created * 1000)


def identifier(body: str) -> str:
    """The id of any object; raises as `payment`."""
    return msgspec.json.decode(body, type=_Identified).id


def replayed(headers: Mapping[str, Any]) -> bool:
    """Whether an answer is one that Stripe saved under the idempotency key."""
    return any(name.lower() == "idempotent-replayed" and value == "true" for name, value in headers.items())


def failure(error: stripe.StripeError, addressed: str | None) -> Ok | Declined | Failure:
    """The outcome that an exception of the SDK stands for. `addressed`: the object's id in the path, if any."""
    again = replayed(error.headers or {})
    match error:
        case stripe.APIConnectionError(__cause__=TimeoutError()):
            return Unknown("timeout")
        case stripe.APIConnectionError():
            return Unknown(f"connection: {type(error.__cause__ or error).__name__}")
        case stripe.AuthenticationError() | stripe.PermissionError():
            return Unknown(f"http_{error.http_status}")  # its message shows part of the key
        case stripe.CardError() | stripe.InvalidRequestError() | stripe.IdempotencyError():
            return _refusal(error, addressed, again)
        case _ if error.http_status == 409:
            return Conflict(error.code or "conflict")
    return Unknown(f"http_{error.http_status}", again and (error.http_status or 0) >= 500)


def _refusal(error: stripe.StripeError, addressed: str | None, again: bool) -> Ok | Declined | Failure:
    try:
        body = msgspec.json.decode(error.http_body or "", type=_Failed).error
    except msgspec.MsgspecError:
        return Unknown(f"unreadable answer, http_{error.http_status}", again)
    intent = _payment(body.payment_intent) if body.payment_intent else None
    if body.type == "card_error":
        return Declined(intent, _decline(body), again)
    if body.code == "payment_intent_unexpected_state" and intent is not None:
        return Ok(intent, again)
    if error.http_status == 404 and body.code == "resource_missing" and addressed is not None:
        return NotFound(addressed)
    return Rejected(body.code or body.type or "invalid_request_error", body.message[:_REASON_LENGTH])


def _payment(intent: _Intent) -> Payment:
    return Payment(
        id=intent.id,
        status=intent.status,
        amount_minor=intent.amount,
        amount_received_minor=intent.amount_received,
        currency=intent.currency.upper(),
        customer=intent.customer,
        metadata=_metadata(intent.metadata),
        created_ms=intent.created * 1000,
        decline=_decline(intent.last_payment_error) if intent.last_payment_error else None,
    )


def _metadata(found: Mapping[str, str]) -> Metadata | None:
    try:
        return Metadata(found["account"], int(found["episode"]), found["timeline"])
    except (KeyError, ValueError):
        return None


def _decline(error: _Error) -> Decline:
    return decline(error.code, error.decline_code, error.advice_code)
