"""Messages of `ledger.entries`: what the ledger decided about an account, in the account's `ledger_seq` order.

Written only by the relay from the outbox, as structured-mode CloudEvents: key and `subject` are the account,
the partition is the account's home partition, the event id is "<timeline>:<account>:<ledger_seq>". A reader
applies `last + 1`, ignores lower or equal, and takes a gap as "unknown".
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from schemas.common import (
    AccountStatus,
    Currency,
    Envelope,
    Id,
    MalformedMessage,
    Micros,
    Offset,
    Partition,
    PositiveMicros,
    Seq,
    Text,
    moment,
)

Origin: TypeAlias = Literal[
    "credit", "recharge", "adjustment", "refund", "rerate", "payment_refund", "chargeback", "goodwill", "migration"
]
"""Why an entry was posted. Only usage, which is not here, makes an account due for recharge (R5). `refund` gives back
what usage cost, `payment_refund` a payment."""


class AccountOpened(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An account exists from here on; always `ledger_seq` 1. Usage below `usage_position` in the home
    partition is not its own. `credit_micros` is the opening credit."""

    account: Id
    ledger_seq: Seq
    timeline: Id
    currency: Currency
    plan: Id
    home_partition: Partition
    usage_position: Offset
    credit_micros: Micros
    credit_limit_micros: PositiveMicros
    recharge_below_micros: Micros | None
    status: AccountStatus


class AccountChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Limits, plan or status are as given from here on (the whole state, not a difference)."""

    account: Id
    ledger_seq: Seq
    timeline: Id
    plan: Id
    credit_limit_micros: PositiveMicros
    recharge_below_micros: Micros | None
    status: AccountStatus


class EntryPosted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An entry other than usage: `amount_micros` above 0 credits the customer, below 0 debits."""

    account: Id
    ledger_seq: Seq
    timeline: Id
    entry_id: Id
    amount_micros: Micros
    currency: Currency
    origin: Origin
    reason: Text


class DebitsAcknowledged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An operator acknowledged the debits that were not usage: they count towards recharge from here on."""

    account: Id
    ledger_seq: Seq
    timeline: Id


class ViewCorrected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The balance store's view of the account was wrong, the ledger right: work it out anew from the ledger. No money
    moves. `delta_micros` is by how much the view was seen to be short of the ledger when that was found; a reader does
    not add it, so applying this to a view that is right, or rebuilt, changes nothing."""

    account: Id
    ledger_seq: Seq
    timeline: Id
    finding: Id
    delta_micros: Micros
    author: Text
    reason: Text


LedgerEntry: TypeAlias = AccountOpened | AccountChanged | EntryPosted | DebitsAcknowledged | ViewCorrected


class AccountOpenedEvent(
    Envelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="ledger.account.opened.v1"
):
    data: AccountOpened


class AccountChangedEvent(
    Envelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="ledger.account.changed.v1"
):
    data: AccountChanged


class EntryPostedEvent(Envelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="ledger.entry.posted.v1"):
    data: EntryPosted


class DebitsAcknowledgedEvent(
    Envelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="ledger.debits.acknowledged.v1"
):
    data: DebitsAcknowledged


class ViewCorrectedEvent(
    Envelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="ledger.view.corrected.v1"
):
    data: ViewCorrected


LedgerEvent: TypeAlias = (
    AccountOpenedEvent | AccountChangedEvent | EntryPostedEvent | DebitsAcknowledgedEvent | ViewCorrectedEvent
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[LedgerEvent] = msgspec.json.Decoder(LedgerEvent)


def entry_event(entry: LedgerEntry, time_ms: int) -> LedgerEvent:
    """The CloudEvent of `entry`; `time_ms` is when it was booked."""
    id_ = f"{entry.timeline}:{entry.account}:{entry.ledger_seq}"
    time = moment(time_ms)
    match entry:
        case AccountOpened():
            return AccountOpenedEvent(id=id_, subject=entry.account, time=time, data=entry)
        case AccountChanged():
            return AccountChangedEvent(id=id_, subject=entry.account, time=time, data=entry)
        case EntryPosted():
            return EntryPostedEvent(id=id_, subject=entry.account, time=time, data=entry)
        case DebitsAcknowledged():
            return DebitsAcknowledgedEvent(id=id_, subject=entry.account, time=time, data=entry)
        case ViewCorrected():
            return ViewCorrectedEvent(id=id_, subject=entry.account, time=time, data=entry)


def encode_entry(entry: LedgerEntry, time_ms: int) -> bytes:
    """The record value of `entry`. Give the record CLOUDEVENTS_HEADERS and the account as its key."""
    return _encoder.encode(entry_event(entry, time_ms))


def decode_entry(value: bytes | None) -> LedgerEntry:
    """The entry in a record of `ledger.entries`. Raises MalformedMessage for anything else."""
    try:
        return _decoder.decode(value or b"").data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"ledger.entries: {error}") from error
