"""What every adapter of the gateway port must do, whatever is behind it.

A bench is a gateway and the means to put its other side into a state: faults, forgotten keys, a crash. Add an
adapter by adding its bench to `BENCHES`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from billing.lab.sandbox.faults import Kind
from billing.lab.sandbox.process import SandboxProcess
from billing.recharge.gateway import (
    Attached,
    Conflict,
    CustomerCreated,
    Declined,
    Gateway,
    Metadata,
    NotFound,
    Ok,
    Page,
    Payment,
    PaymentRequest,
    PaymentStatus,
    Refunded,
    RefundStatus,
    Rejected,
    Unknown,
)
from billing.recharge.stripe_gateway import StripeGateway

_numbers = itertools.count(1)


class Bench(Protocol):
    """One adapter under test."""

    gateway: Gateway

    def impatient(self, deadline_ms: int) -> Gateway:
        """Another adapter to the same gateway, with a short deadline."""
        ...

    def unauthorised(self) -> Gateway:
        """Another adapter, with credentials that the gateway does not take."""
        ...

    def add_fault(self, fault: Kind, *, seconds: float = 0.0) -> None: ...
    async def fault_taken(self) -> None:
        """Wait until the fault has met its confirmation."""
        ...

    def forget_keys(self) -> None: ...
    def crash(self) -> None:
        """End the other side as a power cut would."""
        ...

    def recover(self) -> None:
        """Start it again, at the same address, with what it had on disk."""
        ...

    def charges(self, payment: str) -> list[str]:
        """Status of every attempt to charge."""
        ...

    async def close(self) -> None: ...


class StripeBench:
    """The Stripe adapter on the sandbox, a real process."""

    def __init__(self, sandbox: SandboxProcess) -> None:
        self._sandbox = sandbox
        self._opened: list[StripeGateway] = []
        self.gateway: Gateway = self._open(10_000)

    def _open(self, deadline_ms: int, api_key: str | None = None) -> StripeGateway:
        settings = self._sandbox.settings
        gateway = StripeGateway(replace(settings, api_key=api_key or settings.api_key), deadline_ms=deadline_ms)
        self._opened.append(gateway)
        return gateway

    def impatient(self, deadline_ms: int) -> Gateway:
        return self._open(deadline_ms)

    def unauthorised(self) -> Gateway:
        return self._open(10_000, "sk_test_wrong0000")

    def add_fault(self, fault: Kind, *, seconds: float = 0.0) -> None:
        self._sandbox.controls.add_fault(fault, seconds=seconds)

    async def fault_taken(self) -> None:
        async with asyncio.timeout(10):
            while self._sandbox.controls.faults():  # noqa: ASYNC110  # another process knows
                await asyncio.sleep(0.01)

    def forget_keys(self) -> None:
        self._sandbox.controls.forget_keys()

    def crash(self) -> None:
        self._sandbox.kill()

    def recover(self) -> None:
        self._sandbox.__init__(self._sandbox.folder, port=self._sandbox.port)  # type: ignore[misc]  # the same, again

    def charges(self, payment: str) -> list[str]:
        return self._sandbox.controls.charges(payment)

    async def close(self) -> None:
        for gateway in self._opened:
            await gateway.close()
        self._sandbox.controls.clear_faults()


BENCHES: dict[str, Callable[[SandboxProcess], Bench]] = {"stripe": StripeBench}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    process = SandboxProcess(tmp_path_factory.mktemp("sandbox"))
    yield process
    process.stop()


@pytest.fixture(params=list(BENCHES))
async def bench(request: pytest.FixtureRequest, sandbox: SandboxProcess) -> AsyncIterator[Bench]:
    opened = BENCHES[request.param](sandbox)
    yield opened
    await opened.close()


def key() -> str:
    return f"key-{next(_numbers)}"


async def customer_with(bench: Bench, card: str = "pm_card_visa") -> tuple[str, str]:
    """A customer and a saved card."""
    made = await bench.gateway.create_customer(f"acc-{next(_numbers)}", idempotency_key=key())
    assert isinstance(made, CustomerCreated)
    saved = await bench.gateway.attach_payment_method(card, made.customer, idempotency_key=key())
    assert isinstance(saved, Attached)
    return made.customer, saved.payment_method


async def request_for(bench: Bench, card: str = "pm_card_visa") -> PaymentRequest:
    customer, method = await customer_with(bench, card)
    return PaymentRequest(Metadata(f"acc-{next(_numbers)}", 7, "t1"), customer, method, 2000, "USD")


async def created(bench: Bench, card: str = "pm_card_visa") -> Payment:
    outcome = await bench.gateway.create(await request_for(bench, card), idempotency_key=key())
    assert isinstance(outcome, Ok)
    return outcome.payment


async def read(bench: Bench, payment: str) -> Payment:
    outcome = await bench.gateway.read(payment)
    assert isinstance(outcome, Ok)
    return outcome.payment


async def read_until(bench: Bench, payment: str, status: PaymentStatus) -> Payment:
    async with asyncio.timeout(10):
        while (found := await read(bench, payment)).status is not status:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.02)
    return found


# --- the straight way ---------------------------------------------------------------------------------------


async def test_a_created_payment_carries_what_was_asked_and_moves_no_money(bench: Bench) -> None:
    request = await request_for(bench)
    outcome = await bench.gateway.create(request, idempotency_key=key())
    assert isinstance(outcome, Ok)
    payment = outcome.payment
    assert payment.status is PaymentStatus.REQUIRES_CONFIRMATION
    assert (payment.amount_minor, payment.amount_received_minor, payment.currency) == (2000, 0, "USD")
    assert (payment.customer, payment.metadata) == (request.customer, request.metadata)
    assert abs(payment.created_ms - time.time() * 1000) < 60_000
    assert await read(bench, payment.id) == payment
    assert bench.charges(payment.id) == []


async def test_a_confirmed_payment_is_charged_in_full(bench: Bench) -> None:
    payment = await created(bench)
    outcome = await bench.gateway.confirm(payment.id, idempotency_key=key())
    assert isinstance(outcome, Ok)
    assert (outcome.payment.status, outcome.payment.amount_received_minor) == (PaymentStatus.SUCCEEDED, 2000)
    assert await read(bench, payment.id) == outcome.payment
    assert bench.charges(payment.id) == ["succeeded"]


async def test_a_cancelled_payment_can_never_succeed(bench: Bench) -> None:
    payment = await created(bench)
    outcome = await bench.gateway.cancel(payment.id, idempotency_key=key())
    assert isinstance(outcome, Ok)
    assert outcome.payment.status is PaymentStatus.CANCELED
    late = await bench.gateway.confirm(payment.id, idempotency_key=key())
    assert isinstance(late, Ok)
    assert late.payment.status is PaymentStatus.CANCELED
    assert bench.charges(payment.id) == []


async def test_cancelling_too_late_shows_the_success(bench: Bench) -> None:
    payment = await created(bench)
    await bench.gateway.confirm(payment.id, idempotency_key=key())
    outcome = await bench.gateway.cancel(payment.id, idempotency_key=key())
    assert isinstance(outcome, Ok)
    assert outcome.payment.status is PaymentStatus.SUCCEEDED


# --- keys ---------------------------------------------------------------------------------------------------


async def test_the_same_create_key_makes_one_payment(bench: Bench) -> None:
    request, same = await request_for(bench), key()
    first = await bench.gateway.create(request, idempotency_key=same)
    again = await bench.gateway.create(request, idempotency_key=same)
    assert isinstance(first, Ok)
    assert again == replace(first, replayed=True)


async def test_a_key_used_with_other_parameters_is_rejected(bench: Bench) -> None:
    request, same = await request_for(bench), key()
    await bench.gateway.create(request, idempotency_key=same)
    outcome = await bench.gateway.create(replace(request, amount_minor=2001), idempotency_key=same)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "idempotency_error"


async def test_r3_a_payment_is_charged_once_whatever_the_keys(bench: Bench) -> None:
    payment, same = await created(bench), key()
    for confirm_key, replayed in ((same, False), (same, True), (key(), False), (key(), False)):
        outcome = await bench.gateway.confirm(payment.id, idempotency_key=confirm_key)
        assert isinstance(outcome, Ok)
        assert (outcome.payment.status, outcome.replayed) == (PaymentStatus.SUCCEEDED, replayed)
    assert bench.charges(payment.id) == ["succeeded"]


async def test_s31_many_confirmations_at_once_charge_once(bench: Bench) -> None:
    payment = await created(bench)
    keys = [key() for _ in range(10)]
    outcomes = await asyncio.gather(
        *(bench.gateway.confirm(payment.id, idempotency_key=each) for each in (*keys, *keys))
    )
    assert all(isinstance(outcome, Ok | Conflict) for outcome in outcomes)
    assert bench.charges(payment.id) == ["succeeded"]


async def test_s33_a_forgotten_confirm_key_does_not_charge_again(bench: Bench) -> None:
    payment, same = await created(bench), key()
    await bench.gateway.confirm(payment.id, idempotency_key=same)
    bench.forget_keys()
    outcome = await bench.gateway.confirm(payment.id, idempotency_key=same)
    assert isinstance(outcome, Ok)
    assert (outcome.payment.status, outcome.replayed) == (PaymentStatus.SUCCEEDED, False)
    assert bench.charges(payment.id) == ["succeeded"]


async def test_s33_a_forgotten_create_key_makes_an_idle_payment_and_the_remembered_one_is_read(bench: Bench) -> None:
    request, same = await request_for(bench), key()
    remembered = await bench.gateway.create(request, idempotency_key=same)
    assert isinstance(remembered, Ok)
    await bench.gateway.confirm(remembered.payment.id, idempotency_key=key())
    bench.forget_keys()
    second = await bench.gateway.create(request, idempotency_key=same)
    assert isinstance(second, Ok)
    assert second.payment.id != remembered.payment.id
    assert (await read(bench, remembered.payment.id)).status is PaymentStatus.SUCCEEDED
    assert (await read(bench, second.payment.id)).status is PaymentStatus.REQUIRES_CONFIRMATION
    assert bench.charges(second.payment.id) == []


# --- declines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "code", "decline_code", "hard"),
    [
        ("pm_card_chargeCustomerFail", "card_declined", "generic_decline", False),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required", True),
    ],
)
async def test_s36_a_declined_payment_waits_for_another_card_and_can_be_cancelled(
    bench: Bench, card: str, code: str, decline_code: str, hard: bool
) -> None:
    payment, same = await created(bench, card), key()
    outcome = await bench.gateway.confirm(payment.id, idempotency_key=same)
    assert isinstance(outcome, Declined)
    assert (outcome.code, outcome.decline_code, outcome.hard) == (code, decline_code, hard)
    assert outcome.payment is not None
    assert outcome.payment.status is PaymentStatus.REQUIRES_PAYMENT_METHOD
    assert await read(bench, payment.id) == outcome.payment
    assert outcome.payment.decline == outcome.decline
    assert await bench.gateway.confirm(payment.id, idempotency_key=same) == replace(outcome, replayed=True)
    cancelled = await bench.gateway.cancel(payment.id, idempotency_key=key())
    assert isinstance(cancelled, Ok)
    assert cancelled.payment.status is PaymentStatus.CANCELED
    assert bench.charges(payment.id) == ["failed"]


async def test_a_declined_payment_is_not_charged_by_confirming_it_again(bench: Bench) -> None:
    payment = await created(bench)
    bench.add_fault("decline")
    assert isinstance(await bench.gateway.confirm(payment.id, idempotency_key=key()), Declined)
    outcome = await bench.gateway.confirm(payment.id, idempotency_key=key())
    assert isinstance(outcome, Ok)
    assert outcome.payment.status is PaymentStatus.REQUIRES_PAYMENT_METHOD
    assert bench.charges(payment.id) == ["failed"]


@pytest.mark.parametrize(
    ("card", "code", "decline_code", "hard"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline", False),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds", False),
        ("pm_card_chargeDeclinedFraudulent", "card_declined", "fraudulent", True),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None, True),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None, False),
    ],
)
async def test_a_bad_card_is_refused_when_it_is_saved(
    bench: Bench, card: str, code: str, decline_code: str | None, hard: bool
) -> None:
    customer, _ = await customer_with(bench)
    outcome = await bench.gateway.attach_payment_method(card, customer, idempotency_key=key())
    assert isinstance(outcome, Declined)
    assert (outcome.payment, outcome.code, outcome.decline_code) == (None, code, decline_code)
    assert outcome.hard is hard


# --- unknown outcomes ---------------------------------------------------------------------------------------


async def test_s30_a_confirmation_that_times_out_and_succeeds_later_is_one_charge(bench: Bench) -> None:
    payment, same = await created(bench), key()
    bench.add_fault("delay", seconds=0.6)
    outcome = await bench.impatient(150).confirm(payment.id, idempotency_key=same)
    assert outcome == Unknown("timeout")
    assert isinstance(await bench.gateway.confirm(payment.id, idempotency_key=same), Conflict)
    assert (await read(bench, payment.id)).status is PaymentStatus.REQUIRES_CONFIRMATION
    await read_until(bench, payment.id, PaymentStatus.SUCCEEDED)
    again = await bench.gateway.confirm(payment.id, idempotency_key=same)
    assert isinstance(again, Ok)
    assert (again.payment.status, again.replayed) == (PaymentStatus.SUCCEEDED, True)
    assert bench.charges(payment.id) == ["succeeded"]


async def test_s30_a_second_confirmation_overtaking_a_slow_one_is_one_charge(bench: Bench) -> None:
    payment = await created(bench)
    bench.add_fault("delay", seconds=0.3)
    slow = asyncio.create_task(bench.gateway.confirm(payment.id, idempotency_key=key()))
    await bench.fault_taken()
    fast = await bench.gateway.confirm(payment.id, idempotency_key=key())
    for outcome in (fast, await slow):
        assert isinstance(outcome, Ok)
        assert outcome.payment.status is PaymentStatus.SUCCEEDED
    assert bench.charges(payment.id) == ["succeeded"]


async def test_s39_a_cancelled_call_is_an_unknown_outcome_and_leaves_the_gateway_usable(bench: Bench) -> None:
    payment = await created(bench)
    bench.add_fault("delay", seconds=0.2)
    call = asyncio.create_task(bench.gateway.confirm(payment.id, idempotency_key=key()))
    await bench.fault_taken()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await read_until(bench, payment.id, PaymentStatus.SUCCEEDED)
    assert bench.charges(payment.id) == ["succeeded"]


async def test_a_500_after_the_charge_is_unknown_and_stays_so_under_its_key(bench: Bench) -> None:
    payment, same = await created(bench), key()
    bench.add_fault("error_after_confirm")
    assert await bench.gateway.confirm(payment.id, idempotency_key=same) == Unknown("http_500")
    assert await bench.gateway.confirm(payment.id, idempotency_key=same) == Unknown("http_500", replayed=True)
    assert (await read(bench, payment.id)).status is PaymentStatus.SUCCEEDED
    next_attempt = await bench.gateway.confirm(payment.id, idempotency_key=key())
    assert isinstance(next_attempt, Ok)
    assert next_attempt.payment.amount_received_minor == 2000
    assert bench.charges(payment.id) == ["succeeded"]


async def test_a_connection_cut_after_the_charge_is_unknown_and_the_key_tells_the_result(bench: Bench) -> None:
    payment, same = await created(bench), key()
    bench.add_fault("cut_after_confirm")
    outcome = await bench.gateway.confirm(payment.id, idempotency_key=same)
    assert isinstance(outcome, Unknown)
    assert outcome.reason.startswith("connection:")
    again = await bench.gateway.confirm(payment.id, idempotency_key=same)
    assert isinstance(again, Ok)
    assert (again.payment.status, again.replayed) == (PaymentStatus.SUCCEEDED, True)
    assert bench.charges(payment.id) == ["succeeded"]


async def test_s29_a_charge_survives_a_crash_of_the_gateway_right_after_it(bench: Bench) -> None:
    payment, same = await created(bench), key()
    await bench.gateway.confirm(payment.id, idempotency_key=same)
    bench.crash()
    assert isinstance(await bench.gateway.read(payment.id), Unknown)
    bench.recover()
    assert (await read(bench, payment.id)).status is PaymentStatus.SUCCEEDED
    again = await bench.gateway.confirm(payment.id, idempotency_key=same)
    assert isinstance(again, Ok)
    assert again.replayed
    assert bench.charges(payment.id) == ["succeeded"]


async def test_refused_credentials_say_nothing_about_the_payment_and_show_no_key(bench: Bench) -> None:
    payment = await created(bench)
    outcome = await bench.unauthorised().confirm(payment.id, idempotency_key=key())
    assert outcome == Unknown("http_401")


# --- what is not there, what cannot be ----------------------------------------------------------------------


async def test_a_payment_that_is_not_there_is_not_found_by_any_call(bench: Bench) -> None:
    gateway = bench.gateway
    assert await gateway.read("pi_none") == NotFound("pi_none")
    assert await gateway.confirm("pi_none", idempotency_key=key()) == NotFound("pi_none")
    assert await gateway.cancel("pi_none", idempotency_key=key()) == NotFound("pi_none")


async def test_impossible_requests_are_rejected_by_name(bench: Bench) -> None:
    request = await request_for(bench)
    impossible = (
        (replace(request, customer="cus_none"), "resource_missing"),
        (replace(request, payment_method="pm_none"), "resource_missing"),
        (replace(request, amount_minor=1), "amount_too_small"),
        (replace(request, amount_minor=10**9), "amount_too_large"),
    )
    for each, code in impossible:
        outcome = await bench.gateway.create(each, idempotency_key=key())
        assert isinstance(outcome, Rejected)
        assert outcome.code == code


async def test_attaching_needs_a_card_and_a_customer(bench: Bench) -> None:
    customer, method = await customer_with(bench)
    gateway = bench.gateway
    assert await gateway.attach_payment_method("pm_none", customer, idempotency_key=key()) == NotFound("pm_none")
    assert isinstance(await gateway.attach_payment_method(method, "cus_none", idempotency_key=key()), Rejected)
    other, _ = await customer_with(bench)
    assert isinstance(await gateway.attach_payment_method(method, other, idempotency_key=key()), Rejected)


# --- refunds and lists --------------------------------------------------------------------------------------


async def test_s35_refunds_add_up_to_at_most_what_was_received(bench: Bench) -> None:
    payment, same = await created(bench), key()
    await bench.gateway.confirm(payment.id, idempotency_key=key())
    first = await bench.gateway.refund(payment.id, 500, idempotency_key=same)
    assert isinstance(first, Refunded)
    refund = first.refund
    assert (refund.payment, refund.amount_minor, refund.currency) == (payment.id, 500, "USD")
    assert refund.status is RefundStatus.SUCCEEDED
    assert await bench.gateway.refund(payment.id, 500, idempotency_key=same) == replace(first, replayed=True)
    assert isinstance(await bench.gateway.refund(payment.id, 1501, idempotency_key=key()), Rejected)
    assert isinstance(await bench.gateway.refund(payment.id, 1500, idempotency_key=key()), Refunded)
    assert isinstance(await bench.gateway.refund(payment.id, 1, idempotency_key=key()), Rejected)
    assert (await read(bench, payment.id)).status is PaymentStatus.SUCCEEDED


async def test_a_payment_that_did_not_succeed_is_not_refunded(bench: Bench) -> None:
    payment = await created(bench)
    assert isinstance(await bench.gateway.refund(payment.id, 1, idempotency_key=key()), Rejected)


async def test_recent_payments_are_listed_newest_first_each_once(bench: Bench) -> None:
    since_ms = (time.time_ns() // 1_000_000_000) * 1000
    request = await request_for(bench)
    made = []
    for _ in range(7):
        outcome = await bench.gateway.create(request, idempotency_key=key())
        assert isinstance(outcome, Ok)
        made.append(outcome.payment)
    found: list[Payment] = []
    after: str | None = None
    while True:
        page = await bench.gateway.list_recent(since_ms=since_ms, after=after, limit=3)
        assert isinstance(page, Page)
        assert len(page.payments) <= 3
        found.extend(page.payments)
        after = page.next_after
        if after is None:
            break
    assert [payment for payment in found if payment.metadata == request.metadata] == made[::-1]
    assert len({payment.id for payment in found}) == len(found)
    later = await bench.gateway.list_recent(since_ms=since_ms + 3_600_000)
    assert later == Page((), None)


async def test_a_cursor_that_is_not_there_is_rejected(bench: Bench) -> None:
    assert isinstance(await bench.gateway.list_recent(since_ms=0, after="pi_none"), Rejected)


def test_the_key_of_a_state_folder_is_its_own(tmp_path: Path, sandbox: SandboxProcess) -> None:
    other = SandboxProcess(tmp_path)
    other.stop()
    assert other.settings.api_key != sandbox.settings.api_key
