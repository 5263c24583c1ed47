"""Messages of `billing.signals`: what the in-flight books noticed about an account.

Written by the partition's owner as structured-mode CloudEvents: key and `subject` are the account, the partition is the
account's home partition, the event id "<timeline>:<incarnation>:<partition>:<stream id>" is the same when an event is
published again. Low, exhausted, cutoff and suspended are levels: repeated every 60 s while they hold, so a signal may
come any number of times and is never lost. They only ask for a look: whoever acts reads the books first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from schemas.common import (
    Currency,
    Envelope,
    Id,
    MalformedMessage,
    Micros,
    Millis,
    Offset,
    PositiveMicros,
    moment,
)

Incarnation: TypeAlias = Annotated[int, Meta(ge=0, description="number of the balance store's contents")]
SignalSessionKind: TypeAlias = Literal["call", "message", "item"]


class Signalled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every signal carries: the account as of `usage_position` in its home partition, and that partition's log
    time."""

    account: Id
    currency: Currency
    incarnation: Incarnation
    timeline: Id
    usage_position: Offset
    log_time_ms: Millis


class BalanceSignalled(Signalled, frozen=True, kw_only=True, gc=False):
    """`level_micros` is credit less usage with debits of other origins added back and holds left out, what the recharge
    threshold is compared with; `available_micros` is credit less usage and holds."""

    level_micros: Micros
    available_micros: Micros
    recharge_below_micros: Micros | None
    credit_limit_micros: PositiveMicros


class BalanceLow(BalanceSignalled, frozen=True, kw_only=True, gc=False):
    """The level is below the recharge threshold."""


class BalanceExhausted(BalanceSignalled, frozen=True, kw_only=True, gc=False):
    """Nothing is available any more, the credit limit included."""


class BalanceRestored(BalanceSignalled, frozen=True, kw_only=True, gc=False):
    """Neither low nor exhausted any more, after one of them was."""


class SessionName(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    kind: SignalSessionKind
    session: Id


class SessionCutoff(Signalled, frozen=True, kw_only=True, gc=False):
    """The account is exhausted and these sessions are open; `more`: there are others, which a later one names."""

    sessions: Annotated[list[SessionName], Meta(min_length=1, max_length=100)]
    more: bool


class HoldExpired(Signalled, frozen=True, kw_only=True, gc=False):
    """The session's completion has not come within its lease: what was held is available again. A late completion
    still settles."""

    kind: SignalSessionKind
    session: Id
    amount_micros: PositiveMicros


class AccountSuspended(Signalled, frozen=True, kw_only=True, gc=False):
    """The ledger suspended the account."""


class AccountResumed(Signalled, frozen=True, kw_only=True, gc=False):
    """The ledger opened the account again."""


Signal: TypeAlias = (
    BalanceLow
    | BalanceExhausted
    | BalanceRestored
    | SessionCutoff
    | HoldExpired
    | AccountSuspended
    | AccountResumed
)


class SignalEnvelope(Envelope, frozen=True, kw_only=True, gc=False):
    source: str = "billing/inflight"


class BalanceLowEvent(
    SignalEnvelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="billing.balance.low.v1"
):
    data: BalanceLow


class BalanceExhaustedEvent(
    SignalEnvelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="billing.balance.exhausted.v1"
):
    data: BalanceExhausted


class BalanceRestoredEvent(
    SignalEnvelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="billing.balance.restored.v1"
):
    data: BalanceRestored


class SessionCutoffEvent(
    SignalEnvelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="billing.session.cutoff.v1"
):
    data: SessionCutoff


class HoldExpiredEvent(
    SignalEnvelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="billing.hold.expired.v1"
):
    data: HoldExpired


class AccountSuspendedEvent(
    SignalEnvelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="billing.account.suspended.v1"
):
    data: AccountSuspended


class AccountResumedEvent(
    SignalEnvelope, frozen=True, kw_only=True, gc=False, tag_field="type", tag="billing.account.resumed.v1"
):
    data: AccountResumed


SignalEvent: TypeAlias = (
    BalanceLowEvent
    | BalanceExhaustedEvent
    | BalanceRestoredEvent
    | SessionCutoffEvent
    | HoldExpiredEvent
    | AccountSuspendedEvent
    | AccountResumedEvent
)

_EVENTS: dict[type[Signal], Callable[..., SignalEvent]] = {
    BalanceLow: BalanceLowEvent,
    BalanceExhausted: BalanceExhaustedEvent,
    BalanceRestored: BalanceRestoredEvent,
    SessionCutoff: SessionCutoffEvent,
    HoldExpired: HoldExpiredEvent,
    AccountSuspended: AccountSuspendedEvent,
    AccountResumed: AccountResumedEvent,
}
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[SignalEvent] = msgspec.json.Decoder(SignalEvent)


def signal_event(signal: Signal, event_id: str, time_ms: int) -> SignalEvent:
    """The CloudEvent of `signal`; `time_ms` is when the balance store wrote it."""
    event = _EVENTS[type(signal)]
    return event(id=event_id, subject=signal.account, time=moment(time_ms), data=signal)


def encode_signal(signal: Signal, event_id: str, time_ms: int) -> bytes:
    """The record value of `signal`. Give the record CLOUDEVENTS_HEADERS, the account as its key, and its home
    partition."""
    return _encoder.encode(signal_event(signal, event_id, time_ms))


def decode_signal(value: bytes | None) -> Signal:
    """The signal in a record of `billing.signals`. Raises MalformedMessage for anything else."""
    try:
        return _decoder.decode(value or b"").data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"billing.signals: {error}") from error
