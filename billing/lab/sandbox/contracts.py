"""Parameters of each endpoint, leaves as the strings they come as. Anything else, card data included, is refused."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Whole: TypeAlias = Annotated[str, Meta(pattern=r"^\d{1,15}$")]
Flag: TypeAlias = Literal["true", "false"]
Text: TypeAlias = Annotated[str, Meta(max_length=5000)]
Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255)]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=40)], Annotated[str, Meta(max_length=500)]],
    Meta(max_length=50),
]


class Params(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base: an unknown parameter is an error, as with Stripe."""


class Nothing(Params, frozen=True):
    pass


class CreateCustomer(Params, frozen=True):
    name: Text | None = None
    email: Text | None = None
    description: Text | None = None
    metadata: Metadata = {}


class Attach(Params, frozen=True):
    customer: Id


class CreateIntent(Params, frozen=True):
    amount: Whole
    currency: Annotated[str, Meta(pattern=r"^[A-Za-z]{3}$")]
    customer: Id | None = None
    payment_method: Id | None = None
    allowed_payment_method_types: list[Literal["card"]] | None = None
    payment_method_types: list[Literal["card"]] | None = None
    description: Text | None = None
    metadata: Metadata = {}
    confirm: Flag = "false"
    off_session: Flag | None = None


class ConfirmIntent(Params, frozen=True):
    payment_method: Id | None = None
    off_session: Flag = "false"
    return_url: Text | None = None


class CancelIntent(Params, frozen=True):
    cancellation_reason: Literal["duplicate", "fraudulent", "requested_by_customer", "abandoned"] | None = None


class CreateRefund(Params, frozen=True):
    payment_intent: Id
    amount: Whole | None = None
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None = None
    metadata: Metadata = {}


class Between(Params, frozen=True):
    """Bounds on `created`, seconds since 1970."""

    gt: Whole | None = None
    gte: Whole | None = None
    lt: Whole | None = None
    lte: Whole | None = None


class ListParams(Params, frozen=True):
    """Paging and filters of every list."""

    limit: Whole = "10"
    starting_after: Id | None = None
    ending_before: Id | None = None
    created: Between | Whole | None = None
    customer: Id | None = None
    payment_intent: Id | None = None
    type: Literal["card"] | None = None
