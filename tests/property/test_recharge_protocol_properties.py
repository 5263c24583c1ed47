"""Whatever a gateway and a crashing worker can do, money moves once per intent and is credited once (R3)."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from billing.recharge import protocol as p
from billing.recharge.protocol import Action, Intent, State


@dataclass
class Gateway:
    """One payment as the gateway really has it; each answer may be lost on its way (`heard` False)."""

    status: str = "absent"
    charges: int = 0
    declines: bool = False
    confirm_seen: set[int] = field(default_factory=set)

    def do(self, action: Action) -> p.Event:
        match action:
            case Action.CREATE:
                self.status = "requires_confirmation" if self.status == "absent" else self.status
                return p.Created("pi_1")
            case Action.CONFIRM if self.status == "requires_confirmation":
                self.status = "requires_payment_method" if self.declines else "succeeded"
                self.charges += not self.declines
            case Action.CANCEL if self.status != "succeeded":
                self.status = "canceled"
        return self.read()

    def read(self) -> p.Event:
        return {
            "absent": p.OutcomeUnknown("not found"),
            "requires_confirmation": p.PaymentAwaitsConfirmation(),
            "requires_payment_method": p.PaymentDeclined("card_declined"),
            "succeeded": p.PaymentSucceeded("pi_1", 2000),
            "canceled": p.PaymentCancelled(),
        }[self.status]


turns = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(declines=st.booleans(), turns=turns)
def test_r3_any_mix_of_lost_answers_crashes_and_refusals_charges_at_most_once(
    declines: bool, turns: list[tuple[bool, bool, bool]]
) -> None:
    gateway, ledger_credits = Gateway(declines=declines), 0
    intent, event = Intent(State.PROVING), None
    for heard, crashed, passes in turns:
        action = p.next_action(intent, None if crashed else event)
        match action:
            case Action.NOTHING:
                break
            case Action.PROVE:
                event = p.Proven() if passes else p.CheckRefused("no")
            case Action.CHECK:
                event = p.CheckPassed() if passes else p.CheckRefused("no")
            case Action.CREDIT:
                ledger_credits += 1  # booked in the same transaction as the state: never lost
                event = p.Credited(7)
            case Action.READ_BACK:
                event = p.ReadBack(7 if passes else 6)
            case _:
                answer = gateway.do(action)
                event = answer if heard else p.OutcomeUnknown("lost")
        intent = p.step(intent, event)
    assert gateway.charges <= 1
    assert ledger_credits <= gateway.charges
    if intent.state in p.CLOSED:
        assert ledger_credits == gateway.charges
        assert gateway.status in {"succeeded", "canceled", "absent", "requires_confirmation"}
    if intent.state in {State.CANCELLED, State.REFUSED}:
        assert gateway.charges == 0
