"""What the gateway's answers mean to the protocol: pure, one function per call.

Only final words become events. `succeeded` and `canceled` are final whenever they were saved; any other state in a
replayed answer is that of the first time, so nothing is decided on it: the payment is read.
"""

from __future__ import annotations

from billing.recharge.gateway import (
    Conflict,
    Decline,
    Declined,
    Failure,
    NotFound,
    Ok,
    Payment,
    PaymentOutcome,
    PaymentStatus,
    Rejected,
    Unknown,
)
from billing.recharge.protocol import (
    Action,
    Created,
    CreateImpossible,
    Event,
    OutcomeUnknown,
    PaymentAwaitsConfirmation,
    PaymentCancelled,
    PaymentDeclined,
    PaymentSucceeded,
    SavedServerError,
)


def after_create(outcome: PaymentOutcome) -> Event:
    """Made, impossible, or unknown: then the same key again."""
    match outcome:
        case Ok(payment):
            return _final(payment) or Created(payment.id)
        case Declined(payment=Payment() as payment):
            return Created(payment.id)
        case Declined():
            return CreateImpossible(f"declined:{_code(outcome.decline)}")
        case Rejected(code=code):
            return CreateImpossible(f"rejected:{code}")
        case Unknown(replayed=True):
            return SavedServerError(Action.CREATE)
    return unknown(outcome)


def after_confirm(outcome: PaymentOutcome) -> Event:
    """Money moved, was refused, or nobody knows: then the payment is read by its id."""
    match outcome:
        case Ok(payment, replayed):
            return _final(payment) or (OutcomeUnknown("replayed") if replayed else _settled(payment))
        case Declined(decline=decline, replayed=False):
            return PaymentDeclined(_code(decline))
        case Declined():
            return OutcomeUnknown("replayed decline")
        case Unknown(replayed=True):
            return SavedServerError(Action.CONFIRM)
    return unknown(outcome)


def after_read(outcome: PaymentOutcome) -> Event:
    """What the payment is now; "not found" and "processing" close nothing."""
    match outcome:
        case Ok(Payment(status=PaymentStatus.REQUIRES_CONFIRMATION)):
            return PaymentAwaitsConfirmation()
        case Ok(payment):
            return _final(payment) or _settled(payment)
    return unknown(outcome)


def after_cancel(outcome: PaymentOutcome) -> Event:
    """Cancelled for good, or too late: then the money is credited."""
    match outcome:
        case Ok(payment):
            return _final(payment) or OutcomeUnknown(f"still {payment.status}")
    return unknown(outcome)


def unknown(outcome: Declined | Ok | Failure) -> OutcomeUnknown:
    """Why nothing follows from it; no text of the gateway's that could quote parameters."""
    match outcome:
        case Unknown(reason=reason):
            return OutcomeUnknown(reason)
        case Conflict():
            return OutcomeUnknown("conflict")
        case Rejected(code=code):
            return OutcomeUnknown(f"rejected:{code}")
        case NotFound():
            return OutcomeUnknown(NOT_FOUND)
    return OutcomeUnknown(type(outcome).__name__.lower())


NOT_FOUND = "not_found"
"""The reason of an outcome that a person must look at: the gateway does not know a payment that we remember."""


def _final(payment: Payment) -> Event | None:
    """The two states that nothing can change any more."""
    match payment.status:
        case PaymentStatus.SUCCEEDED:
            return PaymentSucceeded(payment.id, payment.amount_received_minor)
        case PaymentStatus.CANCELED:
            return PaymentCancelled()
    return None


def _settled(payment: Payment) -> Event:
    """A state that is not final, seen just now, of a payment that a confirmation may have reached."""
    match payment.status:
        case PaymentStatus.REQUIRES_PAYMENT_METHOD:
            return PaymentDeclined(_code(payment.decline))
        case PaymentStatus.REQUIRES_ACTION:
            return PaymentDeclined("authentication_required")  # the customer is absent
    return OutcomeUnknown(payment.status.value)


def _code(decline: Decline | None) -> str:
    return "declined" if decline is None else decline.decline_code or decline.code
