"""Events of `usage.events`: what producers tell us, as CloudEvents 1.0 (structured JSON or binary mode).

`subject` is the account and the record's key; `(source, id)` identifies an event, but what is charged is the
session: (account, kind, session id). Unknown members are ignored. Clamped rather than refused: a
`reserve_seconds` above 900 counts as 900.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from schemas.common import E164_PATTERN, ID_PATTERN, MAX_COUNT, MESSAGE_TO_PATTERN, Count, Timestamp

DEFAULT_RESERVE_SECONDS = 60
MAX_RESERVE_SECONDS = 900

# Lengths are checked by msgspec on decoding; character sets by billing/usage/decode.py with one regular
# expression per event, which is three times cheaper than `pattern` here. The schema shows both.
EventId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, extra_json_schema={"pattern": ID_PATTERN})]
Attribute: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=255, extra_json_schema={"pattern": r"^[^\u0000]*$"})
]
From: TypeAlias = Annotated[
    str,
    Meta(max_length=255, description="free text, for display", extra_json_schema={"pattern": r"^[^\u0000]*$"}),
]
E164: TypeAlias = Annotated[
    str, Meta(min_length=8, max_length=16, description="+E.164", extra_json_schema={"pattern": E164_PATTERN})
]
MessageTo: TypeAlias = Annotated[
    str,
    Meta(
        min_length=8,
        max_length=18,
        description="+E.164, or short: and a short code",
        extra_json_schema={"pattern": MESSAGE_TO_PATTERN},
    ),
]
Positive: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Reserve: TypeAlias = Annotated[
    int, Meta(ge=0, le=MAX_COUNT, description="seconds to hold beyond those elapsed; 60 where absent, at most 900")
]
CallDirection: TypeAlias = Literal["inbound", "outbound"]
Channel: TypeAlias = Literal["sms", "mms"]
CallStatus: TypeAlias = Literal["completed", "busy", "no-answer", "failed", "canceled"]
MessageStatus: TypeAlias = Literal["sent", "delivered", "undelivered", "failed"]


class CallStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Place a hold for a call that is being set up."""

    call_id: EventId
    direction: CallDirection
    from_: From = msgspec.field(name="from")
    to: E164
    reserve_seconds: Reserve | None = None
    parent_call_id: EventId | None = None


class CallProgressed(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Extend the hold of a call that goes on, and renew its lease."""

    call_id: EventId
    direction: CallDirection
    from_: From = msgspec.field(name="from")
    to: E164
    answered_at: Timestamp
    elapsed_seconds: Count
    reserve_seconds: Reserve | None = None
    parent_call_id: EventId | None = None


class CallCompleted(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Release the hold and charge. Whole seconds, rounded up by the producer; a status other than `completed`
    costs nothing. Needs no `started` before it."""

    call_id: EventId
    direction: CallDirection
    from_: From = msgspec.field(name="from")
    to: E164
    answered_at: Timestamp | None = None
    duration_seconds: Count
    status: CallStatus
    parent_call_id: EventId | None = None


class MessageAccepted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Place a hold for a message on its way."""

    message_id: EventId
    channel: Channel
    direction: CallDirection
    from_: From = msgspec.field(name="from")
    to: MessageTo
    segments: Positive


class MessageCompleted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Release the hold and charge; only `failed` costs nothing."""

    message_id: EventId
    channel: Channel
    direction: CallDirection
    from_: From = msgspec.field(name="from")
    to: MessageTo
    accepted_at: Timestamp
    segments: Positive
    status: MessageStatus


class ItemCompleted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A one-off charge: a number bought, a recording."""

    item_id: EventId
    sku: EventId
    quantity: Positive


class _UsageEnvelope(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    specversion: Literal["1.0"]
    id: Attribute
    source: Attribute
    subject: EventId
    time: Timestamp


class CallStartedEvent(_UsageEnvelope, frozen=True, kw_only=True, gc=False, tag="usage.call.started.v1"):
    data: CallStarted


class CallProgressedEvent(_UsageEnvelope, frozen=True, kw_only=True, gc=False, tag="usage.call.progressed.v1"):
    data: CallProgressed


class CallCompletedEvent(_UsageEnvelope, frozen=True, kw_only=True, gc=False, tag="usage.call.completed.v1"):
    data: CallCompleted


class MessageAcceptedEvent(_UsageEnvelope, frozen=True, kw_only=True, gc=False, tag="usage.message.accepted.v1"):
    data: MessageAccepted


class MessageCompletedEvent(_UsageEnvelope, frozen=True, kw_only=True, gc=False, tag="usage.message.completed.v1"):
    data: MessageCompleted


class ItemCompletedEvent(_UsageEnvelope, frozen=True, kw_only=True, gc=False, tag="usage.item.completed.v1"):
    data: ItemCompleted


class Tick(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="billing.tick.v1"):
    """Lets log time go on in an idle partition with open holds; written by the partition's owner. Means nothing."""

    specversion: Literal["1.0"]
    id: Attribute
    source: Attribute


UsageEvent: TypeAlias = (
    CallStartedEvent
    | CallProgressedEvent
    | CallCompletedEvent
    | MessageAcceptedEvent
    | MessageCompletedEvent
    | ItemCompletedEvent
)
Event: TypeAlias = UsageEvent | Tick

_encoder = msgspec.json.Encoder()


def encode_event(event: Event) -> bytes:
    """The structured-mode record value of `event`. Give the record CLOUDEVENTS_HEADERS and the subject as key."""
    return _encoder.encode(event)


def tick(source: str, id_: str) -> bytes:
    """The record value of a tick."""
    return encode_event(Tick(specversion="1.0", id=id_, source=source))
