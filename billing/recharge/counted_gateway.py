"""A gateway whose calls are counted and timed; for the rest the one that it wraps."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

from billing.recharge import metrics
from billing.recharge.gateway import (
    AttachOutcome,
    CustomerOutcome,
    Gateway,
    ListOutcome,
    PaymentOutcome,
    PaymentRequest,
    RefundOutcome,
)

T = TypeVar("T")


class CountedGateway:
    """Implements `billing.recharge.gateway.Gateway`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def create(self, request: PaymentRequest, *, idempotency_key: str) -> PaymentOutcome:
        return await _counted("create", self._gateway.create(request, idempotency_key=idempotency_key))

    async def confirm(self, payment: str, *, idempotency_key: str) -> PaymentOutcome:
        return await _counted("confirm", self._gateway.confirm(payment, idempotency_key=idempotency_key))

    async def read(self, payment: str) -> PaymentOutcome:
        return await _counted("read", self._gateway.read(payment))

    async def cancel(self, payment: str, *, idempotency_key: str) -> PaymentOutcome:
        return await _counted("cancel", self._gateway.cancel(payment, idempotency_key=idempotency_key))

    async def refund(self, payment: str, amount_minor: int, *, idempotency_key: str) -> RefundOutcome:
        call = self._gateway.refund(payment, amount_minor, idempotency_key=idempotency_key)
        return await _counted("refund", call)

    async def list_recent(self, *, since_ms: int, after: str | None = None, limit: int = 100) -> ListOutcome:
        return await _counted("list", self._gateway.list_recent(since_ms=since_ms, after=after, limit=limit))

    async def create_customer(self, account: str, *, idempotency_key: str) -> CustomerOutcome:
        call = self._gateway.create_customer(account, idempotency_key=idempotency_key)
        return await _counted("create_customer", call)

    async def attach_payment_method(self, payment_method: str, customer: str, *, idempotency_key: str) -> AttachOutcome:
        call = self._gateway.attach_payment_method(payment_method, customer, idempotency_key=idempotency_key)
        return await _counted("attach", call)


async def _counted(name: str, call: Awaitable[T]) -> T:
    """`cancelled` where the caller went away; the port says that nothing else is raised."""
    began_s, outcome = time.monotonic(), "cancelled"
    try:
        answer = await call
        outcome = type(answer).__name__.lower()
        return answer
    finally:
        metrics.gateway_calls.labels(name, outcome).inc()
        metrics.gateway_seconds.labels(name).observe(time.monotonic() - began_s)
