"""The recharge protocol's table, pair by pair where a pair carries a rule."""

from __future__ import annotations

import pytest

from billing.recharge import protocol as p
from billing.recharge.protocol import Action, Intent, State


def through(*events: p.Event, start: Intent | None = None) -> Intent:
    intent = start or Intent(State.PROVING)
    for event in events:
        intent = p.step(intent, event)
    return intent


HAPPY = (
    p.Proven(),
    p.Created("pi_1"),
    p.CheckPassed(),
    p.PaymentSucceeded("pi_1", 2000),
    p.Credited(7),
    p.ReadBack(7),
)


def test_r3_the_straight_way_ends_confirmed_and_names_each_action() -> None:
    intent, actions = Intent(State.PROVING), []
    for event in HAPPY:
        intent = p.step(intent, event)
        actions.append(p.next_action(intent, event))
    assert intent.state is State.CONFIRMED
    assert actions == [
        Action.CREATE,
        Action.CHECK,
        Action.CONFIRM,
        Action.CREDIT,
        Action.READ_BACK,
        Action.NOTHING,
    ]


@pytest.mark.parametrize("taken", range(len(HAPPY)))
def test_s29_a_worker_that_dies_after_any_step_is_followed_by_one_that_never_confirms_blindly(taken: int) -> None:
    loaded = through(*HAPPY[:taken])
    assert p.next_action(loaded) in {
        State.PROVING: {Action.PROVE},
        State.CREATED: {Action.CHECK},
        State.CONFIRMING: {Action.READ},
        State.SUCCEEDED: {Action.CREDIT},
        State.CREDITED: {Action.READ_BACK},
    }[loaded.state]


def test_s30_an_unknown_outcome_changes_nothing_and_keeps_the_intent_open() -> None:
    confirming = through(*HAPPY[:3])
    after = p.step(confirming, p.OutcomeUnknown("timeout"))
    assert after == confirming
    assert after.state in p.OPEN
    assert p.next_action(after, p.OutcomeUnknown("timeout")) is Action.READ


def test_s32_the_intent_stays_open_until_the_credit_is_read_back() -> None:
    credited = through(*HAPPY[:5])
    assert p.step(credited, p.ReadBack(6)).state is State.CREDITED
    assert State.CREDITED in p.OPEN
    assert p.step(credited, p.ReadBack(8)).state is State.CONFIRMED


def test_s33_a_payment_found_unconfirmed_goes_back_to_the_last_check_before_it_is_confirmed() -> None:
    confirming = through(*HAPPY[:3])
    back = p.step(confirming, p.PaymentAwaitsConfirmation())
    assert (back.state, back.payment_id) == (State.CREATED, "pi_1")
    assert p.next_action(back) is Action.CHECK


def test_s36_a_decline_closes_the_intent_only_after_the_payment_is_cancelled() -> None:
    declined = through(*HAPPY[:3], p.PaymentDeclined("card_declined"))
    assert declined.state in p.OPEN
    assert p.next_action(declined) is Action.CANCEL
    assert p.step(declined, p.OutcomeUnknown("timeout")).state is State.DECLINED
    assert p.step(declined, p.PaymentCancelled()).state is State.CANCELLED


def test_s48_the_last_check_withdraws_a_created_payment() -> None:
    withdrawn = through(*HAPPY[:2], p.CheckRefused("ledger_disagrees"))
    assert p.next_action(withdrawn) is Action.CANCEL
    assert p.step(withdrawn, p.PaymentCancelled()).state is State.CANCELLED


@pytest.mark.parametrize(
    "state", [s for s in State if s not in {State.SUCCEEDED, State.CREDITED, State.CONFIRMED}]
)
def test_s50_a_success_is_credited_from_whatever_state(state: State) -> None:
    late = p.step(Intent(state, payment_id="pi_1"), p.PaymentSucceeded("pi_1", 2000))
    assert (late.state, late.received_minor) == (State.SUCCEEDED, 2000)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.CREDITED, State.CONFIRMED])
def test_s50_a_success_seen_again_is_not_credited_again(state: State) -> None:
    intent = Intent(state, payment_id="pi_1", received_minor=2000, credit_seq=7)
    assert p.step(intent, p.PaymentSucceeded("pi_1", 2000)) == intent


def test_a_success_of_another_payment_is_a_bug() -> None:
    with pytest.raises(p.IllegalEvent):
        p.step(Intent(State.CONFIRMING, payment_id="pi_1"), p.PaymentSucceeded("pi_2", 1))


def test_two_payments_under_one_create_key_are_a_bug() -> None:
    with pytest.raises(p.IllegalEvent):
        through(*HAPPY[:2], p.Created("pi_2"))


def test_a_saved_server_error_raises_only_the_attempt_of_its_call() -> None:
    proving = p.step(Intent(State.PROVING), p.SavedServerError(Action.CREATE))
    assert (proving.create_attempt, proving.confirm_attempt) == (2, 1)
    confirming = p.step(through(*HAPPY[:3]), p.SavedServerError(Action.CONFIRM))
    assert (confirming.create_attempt, confirming.confirm_attempt) == (1, 2)
    with pytest.raises(p.IllegalEvent):
        p.step(Intent(State.SUCCEEDED), p.SavedServerError(Action.CREATE))


def test_keys_name_timeline_account_episode_call_and_attempt() -> None:
    assert p.key("t1", "acc-1", 3, Action.CREATE, 1) == "recharge:t1:acc-1:3:create:1"
    assert p.key("t1", "acc-1", 3, Action.CONFIRM, 2) == "recharge:t1:acc-1:3:confirm:2"
    with pytest.raises(ValueError, match="carries no idempotency key"):
        p.key("t1", "acc-1", 3, Action.READ, 1)
