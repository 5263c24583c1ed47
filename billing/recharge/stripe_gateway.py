"""The gateway port over Stripe's official async client. PaymentIntents of cards, confirmed off session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import stripe
from stripe.params import (
    CustomerCreateParams,
    PaymentIntentConfirmParams,
    PaymentIntentCreateParams,
    PaymentIntentListParams,
    PaymentMethodAttachParams,
    RefundCreateParams,
)

from billing.recharge import stripe_answers as answers
from billing.recharge.gateway import (
    Attached,
    AttachOutcome,
    CustomerCreated,
    CustomerOutcome,
    Declined,
    Failure,
    ListOutcome,
    Ok,
    Payment,
    PaymentOutcome,
    PaymentRequest,
    Refunded,
    RefundOutcome,
    Rejected,
    Unknown,
)
from billing.recharge.stripe_http import StripeHttp
from billing.recharge.stripe_settings import StripeSettings

# The SDK would write an identifier of this machine to ~/.config/stripe and send it and timings along
stripe.enable_telemetry = False

T = TypeVar("T")
_Answer = tuple[T, bool]  # what was decoded, and whether Stripe replayed it


class StripeGateway:
    """Implements `billing.recharge.gateway.Gateway`. Close it when done.

    `deadline_ms` bounds each call from its start to the last byte of the answer. A confirmation may take the card
    networks many seconds: a short deadline costs look-ups, never a second charge.
    """

    def __init__(self, settings: StripeSettings, *, deadline_ms: int = 30_000) -> None:
        self._deadline_seconds = deadline_ms / 1000
        self._http = StripeHttp(self._deadline_seconds)
        client = stripe.StripeClient(
            settings.api_key,
            base_addresses={"api": settings.api_base},
            http_client=self._http,
            max_network_retries=0,  # repeating is the worker's decision: it persists what it knows first
        )
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._customers = client.v1.customers
        self._payment_methods = client.v1.payment_methods

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    async def create(self, request: PaymentRequest, *, idempotency_key: str) -> PaymentOutcome:
        metadata = request.metadata
        params: PaymentIntentCreateParams = {
            "amount": request.amount_minor,
            "currency": request.currency.lower(),
            "customer": request.customer,
            "payment_method": request.payment_method,
            # `payment_method_types` until API version 2026-09-30.endive, which refuses that name
            "allowed_payment_method_types": ["card"],
            "metadata": {
                "account": metadata.account,
                "episode": str(metadata.episode),
                "timeline": metadata.timeline,
            },
        }
        call = self._intents.create_async(params, {"idempotency_key": idempotency_key})
        return _as_payment(await self._ask(call, answers.payment))

    async def confirm(self, payment: str, *, idempotency_key: str) -> PaymentOutcome:
        params: PaymentIntentConfirmParams = {"off_session": True}
        call = self._intents.confirm_async(payment, params, {"idempotency_key": idempotency_key})
        return _as_payment(await self._ask(call, answers.payment, payment))

    async def read(self, payment: str) -> PaymentOutcome:
        return _as_payment(await self._ask(self._intents.retrieve_async(payment), answers.payment, payment))

    async def cancel(self, payment: str, *, idempotency_key: str) -> PaymentOutcome:
        call = self._intents.cancel_async(payment, {}, {"idempotency_key": idempotency_key})
        return _as_payment(await self._ask(call, answers.payment, payment))

    async def refund(self, payment: str, amount_minor: int, *, idempotency_key: str) -> RefundOutcome:
        params: RefundCreateParams = {"payment_intent": payment, "amount": amount_minor}
        call = self._refunds.create_async(params, {"idempotency_key": idempotency_key})
        answer = _no_payment(await self._ask(call, answers.refund, payment))
        return Refunded(*answer) if isinstance(answer, tuple) else answer

    async def list_recent(self, *, since_ms: int, after: str | None = None, limit: int = 100) -> ListOutcome:
        params: PaymentIntentListParams = {"created": {"gte": since_ms // 1000}, "limit": limit}
        if after is not None:
            params["starting_after"] = after
        answer = _no_payment(await self._ask(self._intents.list_async(params), answers.page))
        return answer[0] if isinstance(answer, tuple) else answer

    async def create_customer(self, account: str, *, idempotency_key: str) -> CustomerOutcome:
        params: CustomerCreateParams = {"metadata": {"account": account}}
        call = self._customers.create_async(params, {"idempotency_key": idempotency_key})
        answer = _no_payment(await self._ask(call, answers.identifier))
        return CustomerCreated(*answer) if isinstance(answer, tuple) else answer

    async def attach_payment_method(self, payment_method: str, customer: str, *, idempotency_key: str) -> AttachOutcome:
        params: PaymentMethodAttachParams = {"customer": customer}
        call = self._payment_methods.attach_async(payment_method, params, {"idempotency_key": idempotency_key})
        answer = await self._ask(call, answers.identifier, payment_method)
        if isinstance(answer, Declined):
            return answer
        answer = _no_payment(answer)
        return Attached(*answer) if isinstance(answer, tuple) else answer

    async def _ask(
        self,
        call: Awaitable[object],
        decode: Callable[[str], T],
        addressed: str | None = None,
    ) -> _Answer[T] | Ok | Declined | Failure:
        """Send one request and decode its answer. Cancellation passes through; aiohttp then drops the connection."""
        answer = await self._send(call, addressed)
        if not isinstance(answer, stripe.StripeObject):
            return answer
        response = answer.last_response
        if response is None:
            return Unknown("unreadable answer")
        again = answers.replayed(response.headers)
        try:
            return decode(response.body), again
        except msgspec.MsgspecError:
            return Unknown("unreadable answer", again)

    async def _send(
        self, call: Awaitable[object], addressed: str | None
    ) -> stripe.StripeObject | Ok | Declined | Failure:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await call
        except stripe.StripeError as error:
            return answers.failure(error, addressed)
        except TimeoutError:
            return Unknown("timeout")
        except Exception as error:  # the SDK trips over some bodies that are JSON but not Stripe's (16.1)
            return Unknown(f"unreadable answer, {type(error).__name__}")
        # a 2xx whose body is JSON but no object comes back as a list or None
        return answer if isinstance(answer, stripe.StripeObject) else Unknown("unreadable answer")


def _as_payment(answer: _Answer[Payment] | Ok | Declined | Failure) -> PaymentOutcome:
    return Ok(*answer) if isinstance(answer, tuple) else answer


def _no_payment(answer: _Answer[T] | Ok | Declined | Failure) -> _Answer[T] | Failure:
    """For calls that are about something else than a payment's state: a refusal that carries one is a refusal."""
    match answer:
        case Declined():
            return Rejected(answer.code, answer.decline_code or answer.code)
        case Ok():
            return Rejected("payment_intent_unexpected_state", f"the payment is {answer.payment.status}")
    return answer
