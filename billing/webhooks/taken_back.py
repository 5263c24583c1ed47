"""What went back of a payment, as the gateway has it now: refunds and disputes. Read, never believed from a webhook."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import msgspec
import stripe

from billing.recharge.stripe_http import StripeHttp
from billing.recharge.stripe_settings import StripeSettings

LISTED = 100  # of each, per payment

# a dispute of which the bank has the money; a warning is an inquiry, which moves none, nor does one that was prevented
_WITHDRAWN = frozenset(
    {"needs_response", "under_review", "lost", "charge_refunded", "appeal_needs_response", "appeal_under_review"}
)

# a refund that does not reach the customer, perhaps after it had succeeded; the gateway gives us the money again
_FAILED = frozenset({"failed", "canceled"})

Kind: TypeAlias = Literal["refund", "refund_failed", "dispute", "dispute_won"]


@dataclass(frozen=True, slots=True)
class GoneBack:
    """Money that left again, in minor units. `kind`: a refund that has succeeded; one that has not, after all; a
    dispute whose money the bank took; one that was won: its money, which had been taken, has come back."""

    kind: Kind
    id: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class NotRead:
    """The gateway did not say, or not all; `reason` is a closed word."""

    reason: str


class GoneBackReader(Protocol):
    """What the service needs of the gateway beside its payments."""

    async def gone_back(self, payment: str) -> tuple[GoneBack, ...] | NotRead:
        """Everything that went back of `payment`. Has a deadline of its own."""
        ...


class _Refund(msgspec.Struct):
    id: str
    status: str
    amount: int


class _Dispute(msgspec.Struct):
    id: str
    status: str
    amount: int


T = TypeVar("T", _Refund, _Dispute)


class _Refunds(msgspec.Struct):
    data: list[_Refund]
    has_more: bool


class _Disputes(msgspec.Struct):
    data: list[_Dispute]
    has_more: bool


class StripeGoneBack:
    """A GoneBackReader over Stripe's official client. Close it when done."""

    def __init__(self, settings: StripeSettings, *, deadline_ms: int) -> None:
        self._deadline_s = deadline_ms / 1000
        self._http = StripeHttp(self._deadline_s)
        client = stripe.StripeClient(
            settings.api_key,
            base_addresses={"api": settings.api_base},
            http_client=self._http,
            max_network_retries=0,
        )
        self._refunds, self._disputes = client.v1.refunds, client.v1.disputes

    async def close(self) -> None:
        await self._http.close_async()

    async def gone_back(self, payment: str) -> tuple[GoneBack, ...] | NotRead:
        try:
            async with asyncio.timeout(self._deadline_s):
                refunds = await self._refunds.list_async({"payment_intent": payment, "limit": LISTED})
                disputes = await self._disputes.list_async({"payment_intent": payment, "limit": LISTED})
        except stripe.InvalidRequestError as error:
            return NotRead("not_found" if error.code == "resource_missing" else "rejected")
        except stripe.StripeError as error:
            return NotRead(f"http_{error.http_status}")
        except TimeoutError:
            return NotRead("timeout")
        try:
            return _gone_back(_body(refunds), _body(disputes))
        except msgspec.MsgspecError:
            return NotRead("unreadable")


def _gone_back(refunds: str, disputes: str) -> tuple[GoneBack, ...] | NotRead:
    given = msgspec.json.decode(refunds, type=_Refunds)
    taken = msgspec.json.decode(disputes, type=_Disputes)
    if given.has_more or taken.has_more:
        return NotRead("too_many")
    # what came again first: until it is booked there is no room for a refund that was made in its place
    found: list[GoneBack] = [GoneBack("refund_failed", r.id, r.amount) for r in given.data if r.status in _FAILED]
    found += [GoneBack("dispute_won", d.id, d.amount) for d in taken.data if d.status == "won"]
    found += [GoneBack("refund", r.id, r.amount) for r in given.data if r.status == "succeeded"]
    found += [GoneBack("dispute", d.id, d.amount) for d in taken.data if d.status in _WITHDRAWN]
    return tuple(found)


def _body(answer: Any) -> str:
    response = answer.last_response
    return "" if response is None else str(response.body)
