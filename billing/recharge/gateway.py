"""The payment gateway as recharge sees it: a port, its values, and the closed set of what a call can come to.

Amounts are whole minor units of the currency (cents for USD, yen for JPY), currencies ISO 4217 in upper case, times
ms since 1970 UTC by the gateway's clock. Only tokens of the gateway pass through here, never card data (R12).

What a call came to is a value, never an exception (an exception is a bug), and each says what may follow from it:

- Ok: it answered with the payment; the caller looks at `payment.status`, whichever call it was.
- Declined: the card was refused, no money moved; the caller cancels the payment, then closes the episode.
- Unknown: it may have done it, or may not. After create: the same key again. After confirm: read by id first.
- Conflict: it is working on another request with the same key; as Unknown, after a while.
- Rejected: this request did nothing and never will; what earlier ones did is another matter.
- NotFound: no such object there; closes nothing, a person must look if it stays so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias


class PaymentStatus(StrEnum):
    """A payment's life. Only `succeeded` moved money; it and `canceled` are final."""

    REQUIRES_PAYMENT_METHOD = "requires_payment_method"  # declined: waits for another card
    REQUIRES_CONFIRMATION = "requires_confirmation"  # created, no confirmation has reached it
    REQUIRES_ACTION = "requires_action"  # the customer must authenticate
    PROCESSING = "processing"  # under way: read again later
    REQUIRES_CAPTURE = "requires_capture"  # authorised only; never asked for here
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"


class RefundStatus(StrEnum):
    """A refund's life. `failed` means that the money came back to us."""

    PENDING = "pending"
    REQUIRES_ACTION = "requires_action"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class Metadata:
    """Which episode a payment belongs to; stored with it at the gateway."""

    account: str
    episode: int
    timeline: str


@dataclass(frozen=True, slots=True)
class Decline:
    """Why the card was refused. `hard`: the same card will not do until a person acts (`billing.recharge.declines`)."""

    code: str
    decline_code: str | None
    hard: bool


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as the gateway reports it. `metadata` None: not one of ours. `decline`: the newest refusal of it."""

    id: str
    status: PaymentStatus
    amount_minor: int
    amount_received_minor: int
    currency: str
    customer: str | None
    metadata: Metadata | None
    created_ms: int
    decline: Decline | None = None


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """The parameters of a payment, frozen in the intent's row: a repeated create must send the very same ones."""

    metadata: Metadata
    customer: str
    payment_method: str
    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        if self.amount_minor <= 0:
            raise ValueError("a payment is of at least one minor unit")


@dataclass(frozen=True, slots=True)
class Refund:
    """Money given back from one payment."""

    id: str
    payment: str
    status: RefundStatus
    amount_minor: int
    currency: str
    created_ms: int


# --- outcomes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ok:
    """The gateway answered with the payment. Also the answer to a confirm or cancel that came too late: the payment
    then shows what it is instead (succeeded, canceled). `replayed`: a saved answer to this key, so the state is that
    of the first time; read before anything is decided on it."""

    payment: Payment
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Declined:
    """The card was refused, no money moved. `payment` is None where there is none (attaching a card)."""

    payment: Payment | None
    decline: Decline
    replayed: bool = False

    @property
    def code(self) -> str:
        return self.decline.code

    @property
    def decline_code(self) -> str | None:
        return self.decline.decline_code

    @property
    def hard(self) -> bool:
        return self.decline.hard


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing follows about money. Timeout, lost or refused connection, 5xx, an answer that cannot be read; also 429
    and 401/403: those requests were not carried out, but an earlier one with the same key may have been, and the
    safe next step is the same. `replayed`: the gateway saved a 5xx under this key and will repeat it for ever; only
    a new attempt number gets further."""

    reason: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another request with the same key is being carried out, perhaps by a worker that this one replaced. It may
    move money: the same key again, later, or read by id."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A 4xx that repeating cannot change: bad parameters, no such customer, or the key was used with other
    parameters. Says nothing about earlier requests: a payment whose id is known is read before its intent closes."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """The gateway has no such object. A charge may still exist elsewhere (another key, a restored database)."""

    id: str


@dataclass(frozen=True, slots=True)
class Refunded:
    refund: Refund
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class CustomerCreated:
    customer: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Attached:
    """`payment_method` is the id to charge: attaching a shared token (`pm_card_visa`) makes a new one."""

    payment_method: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Payments, newest first. `next_after` is the cursor of the next, older page, None at the end."""

    payments: tuple[Payment, ...]
    next_after: str | None


Failure: TypeAlias = Unknown | Conflict | Rejected | NotFound
PaymentOutcome: TypeAlias = Ok | Declined | Failure
RefundOutcome: TypeAlias = Refunded | Failure
CustomerOutcome: TypeAlias = CustomerCreated | Failure
AttachOutcome: TypeAlias = Attached | Declined | Failure
ListOutcome: TypeAlias = Page | Failure


class Gateway(Protocol):
    """A payment gateway. Every call has a deadline of its own (R11) and is sent once: repeating is the caller's
    decision, under the key it chooses. A cancelled call drops its connection; its outcome is unknown (S39)."""

    async def create(self, request: PaymentRequest, *, idempotency_key: str) -> PaymentOutcome:
        """Make the payment, unconfirmed: no money moves, so a forgotten key costs at most an idle second one."""
        ...

    async def confirm(self, payment: str, *, idempotency_key: str) -> PaymentOutcome:
        """Charge the card, the customer being absent. A payment can succeed only once, whatever the keys."""
        ...

    async def read(self, payment: str) -> PaymentOutcome:
        """The payment as it is now. Never Declined: a refused one reads Ok with `requires_payment_method`."""
        ...

    async def cancel(self, payment: str, *, idempotency_key: str) -> PaymentOutcome:
        """Make sure that it can never succeed. Ok with `succeeded` means too late: credit it."""
        ...

    async def refund(self, payment: str, amount_minor: int, *, idempotency_key: str) -> RefundOutcome:
        """Give back part or all of a succeeded payment."""
        ...

    async def list_recent(self, *, since_ms: int, after: str | None = None, limit: int = 100) -> ListOutcome:
        """One page (1 to 100 payments) of what was created at or after `since_ms`, rounded down to the gateway's
        resolution; `after` is the previous page's `next_after`."""
        ...

    async def create_customer(self, account: str, *, idempotency_key: str) -> CustomerOutcome:
        """A customer for payment methods to be attached to; `account` goes into its metadata."""
        ...

    async def attach_payment_method(self, payment_method: str, customer: str, *, idempotency_key: str) -> AttachOutcome:
        """Save a tokenised card with the customer, so that it may be charged in their absence. May be declined."""
        ...
