"""Messages of `billing.tariffs`: the catalogue that both consumers price from.

One partition, compacted, one key per version (`catalogue_key`), written only by the relay as structured-mode
CloudEvents. Versions are never changed: a repeated key carries the same content.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from schemas.common import (
    Currency,
    Envelope,
    Id,
    MalformedMessage,
    Millis,
    Offset,
    Partition,
    PositiveMicros,
    Text,
    moment,
)

TariffKind: TypeAlias = Literal["call", "sms", "mms", "item"]
RateDirection: TypeAlias = Literal["inbound", "outbound", ""]
Version: TypeAlias = Annotated[int, Meta(ge=1, description="counted from 1 per plan, or per account")]
Increment: TypeAlias = Annotated[int, Meta(ge=0, le=86_400)]


class Rate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of a tariff. `rate_micros` is per minute (call), per segment (sms, mms) or per unit (item).

    `match` is a destination prefix (digits without plus, or `short:` and digits) or a sku. Increments are at
    least 1 for calls; everything but the rate is 0 for the other kinds. `direction` is empty for items.
    """

    kind: TariffKind
    direction: RateDirection
    match: Annotated[str, Meta(min_length=1, max_length=64)]
    rate_micros: PositiveMicros
    first_increment_seconds: Increment
    next_increment_seconds: Increment
    connect_fee_micros: PositiveMicros
    minimum_charge_micros: PositiveMicros
    description: Text


class TariffVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a plan's tariff, in force from `effective_ms` (0: from the beginning of time)."""

    timeline: Id
    plan: Id
    version: Version
    currency: Currency
    effective_ms: Millis
    rates: tuple[Rate, ...]


class PlanAssignment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The account has `plan` from `effective_ms` on (0: from the beginning of time). Its usage belongs into
    `home_partition`, and counts from the offset `usage_position` on. `placed_ms`: when partitions were added and it
    moved there (0: it was opened there); of two places the later one counts. A version that is told again because of a
    move has a key of its own."""

    timeline: Id
    account: Id
    version: Version
    plan: Id
    effective_ms: Millis
    home_partition: Partition
    usage_position: Offset
    placed_ms: Millis = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Every version committed before `as_of_ms` (the ledger's clock) has been published before this. `partitions`: the
    homes of all accounts are told for this number of partitions (0: by a relay that did not say)."""

    timeline: Id
    as_of_ms: Millis
    partitions: Partition = 0


CatalogueMessage: TypeAlias = TariffVersion | PlanAssignment | Heartbeat


class TariffEvent(Envelope, frozen=True, kw_only=True, tag_field="type", tag="catalogue.tariff.v1"):
    data: TariffVersion


class AssignmentEvent(Envelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="catalogue.assignment.v1"):
    data: PlanAssignment


class HeartbeatEvent(Envelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="catalogue.heartbeat.v1"):
    data: Heartbeat


CatalogueEvent: TypeAlias = TariffEvent | AssignmentEvent | HeartbeatEvent

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[CatalogueEvent] = msgspec.json.Decoder(CatalogueEvent)


def catalogue_key(message: CatalogueMessage) -> bytes:
    """The record key of `message`, which compaction keeps the last of."""
    match message:
        case TariffVersion():
            return f"tariff:{message.plan}:{message.version}".encode()
        case PlanAssignment():
            moved = f":{message.placed_ms}" if message.placed_ms else ""
            return f"plan:{message.account}:{message.version}{moved}".encode()
        case Heartbeat():
            return b"heartbeat"


def catalogue_event(message: CatalogueMessage, time_ms: int) -> CatalogueEvent:
    """The CloudEvent of `message`; its subject is the record key."""
    subject = catalogue_key(message).decode()
    id_ = f"{message.timeline}:{subject}"
    time = moment(time_ms)
    match message:
        case TariffVersion():
            return TariffEvent(id=id_, subject=subject, time=time, data=message)
        case PlanAssignment():
            return AssignmentEvent(id=id_, subject=subject, time=time, data=message)
        case Heartbeat():
            return HeartbeatEvent(id=f"{id_}:{message.as_of_ms}", subject=subject, time=time, data=message)


def encode_catalogue(message: CatalogueMessage, time_ms: int) -> bytes:
    """The record value of `message`. Give the record CLOUDEVENTS_HEADERS and `catalogue_key` as its key."""
    return _encoder.encode(catalogue_event(message, time_ms))


def decode_catalogue(value: bytes | None) -> CatalogueMessage:
    """The message in a record of `billing.tariffs`. Raises MalformedMessage for anything else."""
    try:
        return _decoder.decode(value or b"").data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"billing.tariffs: {error}") from error
