"""The admission service's contract: may this usage begin, and for how long? Query parameters in, JSON out.

`schemas/generated/openapi.json` is made from this file. Amounts are micro-units (10^-6) of `currency`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from schemas.common import (
    E164_PATTERN,
    MAX_COUNT,
    MESSAGE_TO_PATTERN,
    Count,
    Currency,
    Id,
    Millis,
    PositiveMicros,
)
from schemas.usage import CallDirection

CallDestination: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^\+[1-9][0-9]{6,14}\Z",
        extra_json_schema={"pattern": E164_PATTERN},
        description="+E.164. A plus that was not percent-encoded arrives as a space, and is taken for the plus.",
    ),
]
MessageDestination: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(\+[1-9][0-9]{6,14}|short:[0-9]{3,12})\Z",
        extra_json_schema={"pattern": MESSAGE_TO_PATTERN},
        description="+E.164, or short: and a short code",
    ),
]
Quantity: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
UnknownPolicy: TypeAlias = Literal["allow", "deny"]


class AuthorizationReason(StrEnum):
    """Why usage is allowed or not. In order of precedence: the first that applies is given."""

    CLOSED = "closed"  # the account is closed
    SUSPENDED = "suspended"  # the account is suspended
    NO_PRICE = "no_price"  # the account's plan has no price for this; such usage would be a dead letter
    AMOUNT_OUT_OF_RANGE = "amount_out_of_range"  # the price is not below 2^53 micro-units
    BALANCE_UNKNOWN = "balance_unknown"  # decided by policy; `balance.reason` says why
    CURRENCY_MISMATCH = "currency_mismatch"  # the plan's currency is not the balance's; decided by policy
    EXHAUSTED = "exhausted"  # credit and credit limit are used up or held, and this is not free
    CATALOGUE_STALE = "catalogue_stale"  # today's price is not known for certain; decided by policy
    INSUFFICIENT = "insufficient"  # something is left, but less than this costs at least
    OK = "ok"


BY_POLICY = frozenset(
    {AuthorizationReason.BALANCE_UNKNOWN, AuthorizationReason.CURRENCY_MISMATCH, AuthorizationReason.CATALOGUE_STALE}
)
"""Reasons that are the service's own trouble: what is answered is BILLING_ADMISSION_UNKNOWN."""


class CallQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="call"):
    """May this call be connected?"""

    direction: CallDirection
    to: CallDestination


class SmsQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="sms"):
    """May this message of `segments` segments be sent?"""

    direction: CallDirection
    to: MessageDestination
    segments: Quantity = 1


class MmsQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="mms"):
    """The same for a multimedia message."""

    direction: CallDirection
    to: MessageDestination
    segments: Quantity = 1


class ItemQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="item"):
    """May `quantity` of these be bought?"""

    sku: Id
    quantity: Quantity = 1


AuthorizationQuery: TypeAlias = CallQuery | SmsQuery | MmsQuery | ItemQuery
QUERY_TYPES: tuple[type[AuthorizationQuery], ...] = (CallQuery, SmsQuery, MmsQuery, ItemQuery)


class BalanceSeen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the balance store said. An unknown balance has no amounts: null, never zero."""

    status: Literal["known", "unknown"]
    reason: Annotated[
        str | None, Meta(description="why it is unknown, for example rebuilding, unavailable or behind")
    ] = None
    detail: str | None = None
    available_micros: Annotated[int | None, Meta(description="credit less what was used and what is held")] = None
    credit_limit_micros: PositiveMicros | None = None


class AsOf(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The moment that the answer is true of: the account's partition as the balance store has it, and the catalogue.
    Null where not known."""

    log_time_ms: Annotated[Millis | None, Meta(description="log time of the partition")] = None
    positions: Annotated[
        dict[str, Annotated[int, Meta(ge=0)]] | None,
        Meta(description="by topic, the next offset of the partition to be applied"),
    ] = None
    ledger_seq: Annotated[int | None, Meta(description="newest entry of the account that is included")] = None
    catalogue_ms: Annotated[Millis | None, Meta(description="the catalogue has every version committed by then")] = None


class Lag(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How far the balance is behind the log. The log's ends are read about once a second."""

    records: Annotated[
        int,
        Meta(ge=0, description="offsets of the account's partition, both topics, that are not applied yet"),
    ]
    age_ms: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="all that was in the log so long ago is in the balance; null: for longer than the limit"),
    ]


class Authorization(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer. Members that do not apply, or are not known, are null.

    `affordable_seconds` is the longest call that credit and credit limit, less what is used and held, pay for under
    this price: fees, increments and minimum included; at most 2147483647. A call is allowed from 1 second on, a
    message or an item when all of it is affordable. Nothing is held by asking.
    """

    account: Id
    kind: Literal["call", "sms", "mms", "item"]
    allowed: bool
    reason: AuthorizationReason
    policy: Annotated[
        UnknownPolicy | None,
        Meta(description="the setting that decided, where the facts to decide by are unknown; else null"),
    ]
    balance: BalanceSeen
    currency: Currency | None = None
    plan: Id | None = None
    tariff_version: int | None = None
    matched: Annotated[str | None, Meta(description="the tariff's prefix or sku that prices this")] = None
    price_per_minute_micros: PositiveMicros | None = None
    price_per_segment_micros: PositiveMicros | None = None
    price_per_unit_micros: PositiveMicros | None = None
    connect_fee_micros: PositiveMicros | None = None
    minimum_charge_micros: PositiveMicros | None = None
    first_increment_seconds: int | None = None
    next_increment_seconds: int | None = None
    price_micros: Annotated[
        PositiveMicros | None, Meta(description="of the whole message or purchase; null for a call")
    ] = None
    affordable_seconds: Annotated[Count | None, Meta(description="of a call")] = None
    affordable_quantity: Annotated[Count | None, Meta(description="segments, or units")] = None
    as_of: AsOf
    lag: Annotated[Lag | None, Meta(description="of the balance that was read; null where none was, or not known")] = (
        None
    )


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details (RFC 9457). `type` is about:blank, so `title` is the status in words; `code` says which."""

    title: str
    status: int
    code: Literal[
        "malformed_request", "unknown_account", "not_found", "method_not_allowed", "refused", "internal_error"
    ]
    type: Literal["about:blank"] = "about:blank"
    detail: str | None = None
    field: Annotated[str | None, Meta(description="malformed_request: the parameter that is wrong")] = None
