"""What each answer of the gateway means to the protocol: one event each, legal in every state that meets it."""

from __future__ import annotations

import pytest

from billing.recharge import outcomes
from billing.recharge.gateway import (
    Conflict,
    Decline,
    Declined,
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
    Intent,
    OutcomeUnknown,
    PaymentAwaitsConfirmation,
    PaymentCancelled,
    PaymentDeclined,
    PaymentSucceeded,
    SavedServerError,
    State,
    step,
)

FUNDS = Decline("card_declined", "insufficient_funds", hard=False)


def pay(status: PaymentStatus, decline: Decline | None = None) -> Payment:
    received = 2000 if status is PaymentStatus.SUCCEEDED else 0
    return Payment("pi_1", status, 2000, received, "USD", "cus_1", None, 0, decline)


S = PaymentStatus
SUCCEEDED, CANCELLED = PaymentSucceeded("pi_1", 2000), PaymentCancelled()
CASES: list[tuple[Action, PaymentOutcome, Event]] = [
    (Action.CREATE, Ok(pay(S.REQUIRES_CONFIRMATION)), Created("pi_1")),
    (Action.CREATE, Ok(pay(S.REQUIRES_CONFIRMATION), replayed=True), Created("pi_1")),
    (Action.CREATE, Ok(pay(S.SUCCEEDED)), SUCCEEDED),
    (Action.CREATE, Ok(pay(S.CANCELED)), CANCELLED),
    (Action.CREATE, Declined(None, FUNDS), CreateImpossible("declined:insufficient_funds")),
    (Action.CREATE, Declined(pay(S.REQUIRES_PAYMENT_METHOD, FUNDS), FUNDS), Created("pi_1")),
    (Action.CREATE, Rejected("resource_missing", "no such customer"), CreateImpossible("rejected:resource_missing")),
    (Action.CREATE, Unknown("timeout"), OutcomeUnknown("timeout")),
    (Action.CREATE, Unknown("http_500", replayed=True), SavedServerError(Action.CREATE)),
    (Action.CREATE, Conflict("busy"), OutcomeUnknown("conflict")),
    (Action.CREATE, NotFound("cus_1"), OutcomeUnknown("not_found")),
    (Action.CONFIRM, Ok(pay(S.SUCCEEDED)), SUCCEEDED),
    (Action.CONFIRM, Ok(pay(S.SUCCEEDED), replayed=True), SUCCEEDED),  # final whenever it was saved
    (Action.CONFIRM, Ok(pay(S.CANCELED)), CANCELLED),
    (Action.CONFIRM, Ok(pay(S.PROCESSING)), OutcomeUnknown("processing")),
    (Action.CONFIRM, Ok(pay(S.REQUIRES_ACTION)), PaymentDeclined("authentication_required")),
    (Action.CONFIRM, Ok(pay(S.REQUIRES_ACTION), replayed=True), OutcomeUnknown("replayed")),
    (Action.CONFIRM, Ok(pay(S.REQUIRES_CONFIRMATION)), OutcomeUnknown("requires_confirmation")),
    (Action.CONFIRM, Declined(pay(S.REQUIRES_PAYMENT_METHOD, FUNDS), FUNDS), PaymentDeclined("insufficient_funds")),
    (Action.CONFIRM, Declined(None, FUNDS, replayed=True), OutcomeUnknown("replayed decline")),
    (Action.CONFIRM, Unknown("http_500"), OutcomeUnknown("http_500")),
    (Action.CONFIRM, Unknown("http_500", replayed=True), SavedServerError(Action.CONFIRM)),
    (Action.CONFIRM, NotFound("pi_1"), OutcomeUnknown("not_found")),
    (Action.CONFIRM, Rejected("idempotency_error", "other"), OutcomeUnknown("rejected:idempotency_error")),
    (Action.READ, Ok(pay(S.REQUIRES_CONFIRMATION)), PaymentAwaitsConfirmation()),
    (Action.READ, Ok(pay(S.SUCCEEDED)), SUCCEEDED),
    (Action.READ, Ok(pay(S.CANCELED)), CANCELLED),
    (Action.READ, Ok(pay(S.PROCESSING)), OutcomeUnknown("processing")),
    (Action.READ, Ok(pay(S.REQUIRES_CAPTURE)), OutcomeUnknown("requires_capture")),
    (Action.READ, Ok(pay(S.REQUIRES_PAYMENT_METHOD, FUNDS)), PaymentDeclined("insufficient_funds")),
    (Action.READ, NotFound("pi_1"), OutcomeUnknown("not_found")),
    (Action.READ, Unknown("timeout"), OutcomeUnknown("timeout")),
    (Action.CANCEL, Ok(pay(S.CANCELED)), CANCELLED),
    (Action.CANCEL, Ok(pay(S.SUCCEEDED)), SUCCEEDED),  # too late: it is credited
    (Action.CANCEL, Ok(pay(S.PROCESSING)), OutcomeUnknown("still processing")),
    (Action.CANCEL, NotFound("pi_1"), OutcomeUnknown("not_found")),
    (Action.CANCEL, Unknown("http_500", replayed=True), OutcomeUnknown("http_500")),
]
AFTER = {
    Action.CREATE: outcomes.after_create,
    Action.CONFIRM: outcomes.after_confirm,
    Action.READ: outcomes.after_read,
    Action.CANCEL: outcomes.after_cancel,
}
MET_IN = {
    Action.CREATE: [Intent(State.PROVING)],
    Action.CONFIRM: [Intent(State.CONFIRMING, "pi_1")],
    Action.READ: [Intent(State.CONFIRMING, "pi_1")],
    Action.CANCEL: [Intent(State.DECLINED, "pi_1"), Intent(State.WITHDRAWN, "pi_1")],
}


@pytest.mark.parametrize(("action", "outcome", "event"), CASES)
def test_s30_every_answer_has_one_meaning_that_its_state_can_take(
    action: Action, outcome: PaymentOutcome, event: Event
) -> None:
    assert AFTER[action](outcome) == event
    for intent in MET_IN[action]:
        after = step(intent, event)
        if isinstance(event, OutcomeUnknown):
            assert after == intent  # nothing follows from it


def test_r12_the_gateway_s_own_words_are_not_kept() -> None:
    event = outcomes.after_create(Rejected("parameter_invalid", "4242424242424242 is no token"))
    assert event == CreateImpossible("rejected:parameter_invalid")
