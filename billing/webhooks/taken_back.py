"""What went back, as the gateway has it now: refunds and disputes, of one payment or the newest of all. Read, never
believed from a webhook."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeVar

import msgspec
import stripe
import structlog
from stripe.params import DisputeListParams, RefundListParams

from billing.recharge.stripe_http import StripeHttp
from billing.recharge.stripe_settings import StripeSettings

log = structlog.get_logger(__name__)

LISTED = 100  # of each, per payment; also the length of a page of all, the longest that the gateway gives

# a dispute of which the bank has the money; a warning is an inquiry, which moves none, nor does one that was prevented
_WITHDRAWN = frozenset(
    {"needs_response", "under_review", "lost", "charge_refunded", "appeal_needs_response", "appeal_under_review"}
)

# a refund that does not reach the customer, perhaps after it had succeeded; the gateway gives us the money again
_FAILED = frozenset({"failed", "canceled"})

# why one payment is not read though the gateway answers; whatever else: it is away, or does not let us in
_OF_THIS_ONE = frozenset({"not_found", "rejected", "too_many", "unreadable"})

Kind: TypeAlias = Literal["refund", "refund_failed", "dispute", "dispute_won"]
ListKind: TypeAlias = Literal["refunds", "disputes"]


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

    @property
    def away(self) -> bool:
        """Whether other payments cannot be read now either."""
        return self.reason not in _OF_THIS_ONE


@dataclass(frozen=True, slots=True)
class Listed:
    """A refund or dispute in the gateway's list. `status`: the gateway's word for it now; `payment` None: it is of a
    charge that no payment made."""

    id: str
    status: str
    payment: str | None


@dataclass(frozen=True, slots=True)
class ListedPage:
    """Refunds or disputes, newest first. `next_after` is the cursor of the next, older page, None at the end."""

    listed: tuple[Listed, ...]
    next_after: str | None


class GoneBackReader(Protocol):
    """What the service needs of the gateway beside its payments."""

    async def gone_back(self, payment: str) -> tuple[GoneBack, ...] | NotRead:
        """Everything that went back of `payment`. Has a deadline of its own."""
        ...


class GoneBackLists(Protocol):
    """What the sweep needs of the gateway."""

    async def recent(self, kind: ListKind, since_s: int, after: str | None = None) -> ListedPage | NotRead:
        """A page of all refunds or disputes created since then (seconds since 1970), whatever has become of them.
        Has a deadline of its own."""
        ...


class _Refund(msgspec.Struct):
    id: str
    status: str | None  # null for some refunds
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


class _Entry(msgspec.Struct):
    id: str
    status: str | None = None  # null for some refunds
    payment_intent: str | None = None


class _Page(msgspec.Struct):
    data: list[_Entry]
    has_more: bool


class StripeGoneBack:
    """A GoneBackReader and GoneBackLists over Stripe's official client. Close it when done."""

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
        except Exception as error:
            return _not_read(error)
        try:
            return _gone_back(_body(refunds), _body(disputes))
        except msgspec.MsgspecError:
            return NotRead("unreadable")

    async def recent(self, kind: ListKind, since_s: int, after: str | None = None) -> ListedPage | NotRead:
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._list(kind, since_s, after)
        except Exception as error:
            return _not_read(error)
        try:
            page = msgspec.json.decode(_body(answer), type=_Page)
        except msgspec.MsgspecError:
            return NotRead("unreadable")
        if page.has_more and not page.data:  # more of what?
            return NotRead("unreadable")
        listed = tuple(Listed(each.id, each.status or "", each.payment_intent) for each in page.data)
        return ListedPage(listed, listed[-1].id if page.has_more else None)

    async def _list(self, kind: ListKind, since_s: int, after: str | None) -> object:
        if kind == "refunds":
            refunds: RefundListParams = {"created": {"gte": since_s}, "limit": LISTED}
            if after is not None:
                refunds["starting_after"] = after
            return await self._refunds.list_async(refunds)
        disputes: DisputeListParams = {"created": {"gte": since_s}, "limit": LISTED}
        if after is not None:
            disputes["starting_after"] = after
        return await self._disputes.list_async(disputes)


def _not_read(error: Exception) -> NotRead:
    """Why a call brought nothing."""
    match error:
        case stripe.InvalidRequestError():
            return NotRead("not_found" if error.code == "resource_missing" else "rejected")
        case stripe.StripeError():
            return NotRead(f"http_{error.http_status}")
        case TimeoutError():
            return NotRead("timeout")
    log.warning("webhook.unreadable", error=f"{type(error).__name__}: {str(error)[:200]}")
    return NotRead("unreadable")  # the SDK trips over some bodies that are JSON but not Stripe's (16.1)


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


def _body(answer: object) -> str:
    response = getattr(answer, "last_response", None)  # a body that is JSON but no object comes as a list or None
    return "" if response is None else str(response.body)
