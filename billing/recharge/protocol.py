"""The recharge protocol as a pure state table: no I/O, no clock.

A worker persists the state that `step` returns before it performs the action that `next_action` names, and feeds what
came of it back as an event. Every event is legal in every open state that can meet it, and a success is legal even
in a closed one: a payment that was declared lost or declined and succeeds later is credited once (S50).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias


class State(StrEnum):
    """Where an intent stands. The comment says what the worker does next."""

    PROVING = "proving"  # prove a balance write, then create the payment, unconfirmed
    CREATED = "created"  # the payment's id is remembered: check once more, then confirm that id
    CONFIRMING = "confirming"  # a confirmation may have been sent: only reading the payment tells
    SUCCEEDED = "succeeded"  # money moved: book the credit in the ledger
    CREDITED = "credited"  # booked: wait until Redis shows its ledger_seq
    DECLINED = "declined"  # refused by the bank: cancel the payment before anything else
    WITHDRAWN = "withdrawn"  # a check refused after the payment was created: cancel it
    CONFIRMED = "confirmed"  # closed: the credit was read back
    CANCELLED = "cancelled"  # closed: the payment can never succeed any more
    REFUSED = "refused"  # closed: a check refused before a payment was created


CLOSED = frozenset({State.CONFIRMED, State.CANCELLED, State.REFUSED})
OPEN = frozenset(State) - CLOSED


class Action(StrEnum):
    """The one side effect that a state asks for."""

    PROVE = "prove"
    CREATE = "create"
    CHECK = "check"
    CONFIRM = "confirm"
    READ = "read"
    CREDIT = "credit"
    READ_BACK = "read_back"
    CANCEL = "cancel"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Intent:
    """What is persisted of one recharge. `payment_id` never changes once it is known."""

    state: State
    payment_id: str | None = None
    received_minor: int | None = None
    credit_seq: int | None = None
    create_attempt: int = 1
    confirm_attempt: int = 1
    reason: str | None = None


# --- events: what came of an action -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proven:
    """The write proof holds; it is good for the create call that follows at once."""


@dataclass(frozen=True, slots=True)
class CheckRefused:
    """A check, the proof included, says no."""

    reason: str


@dataclass(frozen=True, slots=True)
class CheckPassed:
    """The last look before money moves found nothing; the confirmation follows at once."""


@dataclass(frozen=True, slots=True)
class Created:
    payment_id: str


@dataclass(frozen=True, slots=True)
class CreateImpossible:
    """The gateway says that this payment can never be created (bad parameters, no such customer)."""

    reason: str


@dataclass(frozen=True, slots=True)
class SavedServerError:
    """The gateway replays a saved 5xx under this key: only a new attempt number can get further."""

    action: Action


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """Timeout, 5xx, lost connection, processing, not found: nothing follows from it."""

    reason: str


@dataclass(frozen=True, slots=True)
class PaymentAwaitsConfirmation:
    """The payment reads `requires_confirmation`: no confirmation has reached it."""


@dataclass(frozen=True, slots=True)
class PaymentSucceeded:
    payment_id: str
    received_minor: int


@dataclass(frozen=True, slots=True)
class PaymentDeclined:
    reason: str


@dataclass(frozen=True, slots=True)
class PaymentCancelled:
    """The payment reads `canceled`: final."""


@dataclass(frozen=True, slots=True)
class Credited:
    ledger_seq: int


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Redis shows this ledger_seq for the account."""

    ledger_seq: int


Event: TypeAlias = (
    Proven
    | CheckRefused
    | CheckPassed
    | Created
    | CreateImpossible
    | SavedServerError
    | OutcomeUnknown
    | PaymentAwaitsConfirmation
    | PaymentSucceeded
    | PaymentDeclined
    | PaymentCancelled
    | Credited
    | ReadBack
)


class IllegalEvent(Exception):
    """An event that its state can never meet: a bug in the worker, not a refusal."""


# state and event -> the next state; what is missing is illegal
_TABLE: dict[tuple[State, type], State] = {
    (State.PROVING, Proven): State.PROVING,
    (State.PROVING, CheckRefused): State.REFUSED,
    (State.PROVING, Created): State.CREATED,
    (State.PROVING, CreateImpossible): State.REFUSED,
    (State.PROVING, PaymentCancelled): State.CANCELLED,
    (State.CREATED, CheckPassed): State.CONFIRMING,
    (State.CREATED, CheckRefused): State.WITHDRAWN,
    (State.CREATED, Created): State.CREATED,
    (State.CREATED, PaymentAwaitsConfirmation): State.CREATED,
    (State.CREATED, PaymentDeclined): State.DECLINED,
    (State.CREATED, PaymentCancelled): State.CANCELLED,
    # not yet confirmed after all: back to the last check, which may be old by now
    (State.CONFIRMING, PaymentAwaitsConfirmation): State.CREATED,
    (State.CONFIRMING, PaymentDeclined): State.DECLINED,
    (State.CONFIRMING, PaymentCancelled): State.CANCELLED,
    (State.DECLINED, PaymentAwaitsConfirmation): State.DECLINED,
    (State.DECLINED, PaymentDeclined): State.DECLINED,
    (State.DECLINED, PaymentCancelled): State.CANCELLED,
    (State.WITHDRAWN, PaymentAwaitsConfirmation): State.WITHDRAWN,
    (State.WITHDRAWN, PaymentDeclined): State.DECLINED,
    (State.WITHDRAWN, PaymentCancelled): State.CANCELLED,
    (State.SUCCEEDED, Credited): State.CREDITED,
    (State.CREDITED, Credited): State.CREDITED,
}

_BOOKED = frozenset({State.SUCCEEDED, State.CREDITED, State.CONFIRMED})


def step(intent: Intent, event: Event) -> Intent:
    """The intent after `event`. Raises IllegalEvent where the table has no such pair."""
    match event:
        case OutcomeUnknown():
            return intent
        case SavedServerError(action=action):
            return _next_attempt(intent, action)
        case PaymentSucceeded():
            return _succeeded(intent, event)
        case ReadBack(ledger_seq=seq) if intent.state is State.CREDITED and intent.credit_seq is not None:
            return replace(intent, state=State.CONFIRMED) if seq >= intent.credit_seq else intent
    if isinstance(event, PaymentAwaitsConfirmation | PaymentDeclined | PaymentCancelled) and intent.state in CLOSED:
        return intent  # a late notice about a payment that cannot succeed: nothing follows
    target = _TABLE.get((intent.state, type(event)))
    if target is None:
        raise IllegalEvent(f"{type(event).__name__} in {intent.state}")
    return _with_facts(replace(intent, state=target), event)


def _succeeded(intent: Intent, event: PaymentSucceeded) -> Intent:
    if intent.payment_id not in (None, event.payment_id):
        raise IllegalEvent("a success of another payment: it belongs to another intent")
    if intent.state in _BOOKED:
        return intent  # the credit is booked once, from whatever state, and this one is already on its way
    return replace(
        intent, state=State.SUCCEEDED, payment_id=event.payment_id, received_minor=event.received_minor
    )


def _next_attempt(intent: Intent, action: Action) -> Intent:
    if action is Action.CREATE and intent.state is State.PROVING:
        return replace(intent, create_attempt=intent.create_attempt + 1)
    if action is Action.CONFIRM and intent.state is State.CONFIRMING:
        return replace(intent, confirm_attempt=intent.confirm_attempt + 1)
    raise IllegalEvent(f"SavedServerError({action}) in {intent.state}")


def _with_facts(intent: Intent, event: Event) -> Intent:
    match event:
        case Created(payment_id=payment_id):
            if intent.payment_id not in (None, payment_id):
                raise IllegalEvent("one create key answered with two payments")
            return replace(intent, payment_id=payment_id)
        case Credited(ledger_seq=seq):
            return replace(intent, credit_seq=seq)
        case CheckRefused(reason=reason) | CreateImpossible(reason=reason) | PaymentDeclined(reason=reason):
            return replace(intent, reason=reason)
    return intent


_ACTIONS = {
    State.PROVING: Action.PROVE,
    State.CREATED: Action.CHECK,
    State.CONFIRMING: Action.READ,
    State.SUCCEEDED: Action.CREDIT,
    State.CREDITED: Action.READ_BACK,
    State.DECLINED: Action.CANCEL,
    State.WITHDRAWN: Action.CANCEL,
}


def next_action(intent: Intent, came_from: Event | None = None) -> Action:
    """What to do next. Without `came_from` the intent was just loaded, perhaps by another worker than before: then a
    confirmation may have been sent, so CONFIRMING reads first; right after CheckPassed it confirms."""
    if intent.state in CLOSED:
        return Action.NOTHING
    if isinstance(came_from, Proven):
        return Action.CREATE
    if isinstance(came_from, CheckPassed):
        return Action.CONFIRM
    return _ACTIONS[intent.state]


def key(timeline: str, account: str, episode: int, action: Action, attempt: int) -> str:
    """The idempotency key of a create or confirm call."""
    if action not in (Action.CREATE, Action.CONFIRM):
        raise ValueError(f"{action} carries no idempotency key")
    return f"recharge:{timeline}:{account}:{episode}:{action}:{attempt}"
