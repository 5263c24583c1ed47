"""Any sequence of retries, faults, forgotten keys and crashes, through the real adapter and a real sandbox process,
charges a payment at most once, and an episode that confirms only the payment it remembers at most once (R3)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.lab.sandbox.faults import Kind
from billing.lab.sandbox.process import SandboxProcess
from billing.recharge.gateway import (
    Attached,
    CustomerCreated,
    Declined,
    Metadata,
    Ok,
    Page,
    Payment,
    PaymentOutcome,
    PaymentRequest,
    PaymentStatus,
)
from billing.recharge.stripe_gateway import StripeGateway

FINAL = {PaymentStatus.SUCCEEDED, PaymentStatus.CANCELED}
AMOUNT_MINOR = 2000

attempts = st.integers(1, 3)
steps = st.one_of(
    st.tuples(st.just("create"), attempts),
    st.tuples(st.just("confirm"), attempts),
    st.tuples(st.just("confirm_many"), attempts),
    st.tuples(st.just("read"), st.just(0)),
    st.tuples(st.just("cancel"), attempts),
    st.tuples(st.just("forget_keys"), st.just(0)),
    st.tuples(st.sampled_from(["decline", "delay", "error_after_confirm", "cut_after_confirm"]), attempts),
)


@dataclass
class Rig:
    """The sandbox, an adapter whose deadline is shorter than the sandbox's delays, and a loop of its own."""

    sandbox: SandboxProcess
    gateway: StripeGateway
    runner: asyncio.Runner
    episodes: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    sandbox = SandboxProcess(tmp_path_factory.mktemp("sandbox"))
    with asyncio.Runner() as runner:
        gateway = StripeGateway(sandbox.settings, deadline_ms=10_000)
        yield Rig(sandbox, gateway, runner)
        runner.run(gateway.close())
    sandbox.stop()


@dataclass
class Episode:
    """What a worker knows: the request, the first payment it heard of, and the final state it has seen, if any."""

    rig: Rig
    request: PaymentRequest
    name: str
    remembered: str | None = None
    seen_final: PaymentStatus | None = None

    async def do(self, step: str, number: int) -> None:
        gateway = self.rig.gateway
        match step:
            case "create":
                key = f"{self.name}:create:{number}"
                outcome = await gateway.create(self.request, idempotency_key=key)
                if self.remembered is None and isinstance(outcome, Ok):
                    self.remembered = outcome.payment.id
            case "forget_keys":
                self.rig.sandbox.controls.forget_keys()
            case "decline" | "delay" | "error_after_confirm" | "cut_after_confirm":
                self._fault(step, number)
            case _ if self.remembered is not None:
                await self._with_payment(step, self.remembered, number)

    def _fault(self, kind: Kind, count: int) -> None:
        self.rig.sandbox.controls.add_fault(kind, count=count, seconds=0.005)

    async def _with_payment(self, step: str, payment: str, number: int) -> None:
        gateway = self.rig.gateway
        match step:
            case "read":
                self._saw(await gateway.read(payment))
            case "cancel":
                self._saw(await gateway.cancel(payment, idempotency_key=f"{self.name}:cancel:{number}"))
            case "confirm":
                self._saw(await gateway.confirm(payment, idempotency_key=f"{self.name}:confirm:{number}"))
            case "confirm_many":  # a worker and one that took over from it, with and without the same key
                keys = [f"{self.name}:confirm:{n}" for n in (number, number, number + 1)]
                calls = [gateway.confirm(payment, idempotency_key=key) for key in keys]
                for outcome in await asyncio.gather(*calls):
                    self._saw(outcome)

    def _saw(self, outcome: PaymentOutcome) -> None:
        """A state that is final stays, and nothing but a replay shows an older one."""
        if isinstance(outcome, Declined):
            assert outcome.replayed or self.seen_final is None
        if not isinstance(outcome, Ok):
            return
        status = outcome.payment.status
        if status in FINAL:
            assert self.seen_final in (None, status)
            self.seen_final = status
        elif not outcome.replayed:
            assert self.seen_final is None


async def new_episode(rig: Rig) -> Episode:
    number = next(rig.episodes)
    name = f"episode-{number}"
    made = await rig.gateway.create_customer(name, idempotency_key=f"{name}:customer")
    assert isinstance(made, CustomerCreated)
    saved = await rig.gateway.attach_payment_method("pm_card_visa", made.customer, idempotency_key=f"{name}:attach")
    assert isinstance(saved, Attached)
    metadata = Metadata(name, number, "t1")
    return Episode(rig, PaymentRequest(metadata, made.customer, saved.payment_method, AMOUNT_MINOR, "USD"), name)


async def payments_of(rig: Rig, episode: Episode) -> list[Payment]:
    """Every payment of the episode at the gateway, remembered or not."""
    found: list[Payment] = []
    after: str | None = None
    while True:
        page = await rig.gateway.list_recent(since_ms=0, after=after)
        assert isinstance(page, Page)
        ours = [payment for payment in page.payments if payment.metadata == episode.request.metadata]
        found.extend(ours)
        after = page.next_after
        if after is None or (found and not ours):
            return found


def check(rig: Rig, episode: Episode) -> None:
    """What the gateway really did in this episode."""
    payments = rig.runner.run(payments_of(rig, episode))
    for payment in payments:
        attempts = rig.sandbox.controls.charges(payment.id)
        assert attempts.count("succeeded") == (payment.status is PaymentStatus.SUCCEEDED) <= 1
        if payment.id != episode.remembered:
            assert attempts == []
    received = sum(payment.amount_received_minor for payment in payments)
    assert received in (0, AMOUNT_MINOR)
    if episode.seen_final is not None:
        assert received == (AMOUNT_MINOR if episode.seen_final is PaymentStatus.SUCCEEDED else 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(steps, min_size=1, max_size=15))
def test_r3_retries_and_faults_in_any_order_charge_once(rig: Rig, script: list[tuple[str, int]]) -> None:
    rig.sandbox.controls.clear_faults()
    episode = rig.runner.run(new_episode(rig))
    for step, number in (("create", 1), *script):
        rig.runner.run(episode.do(step, number))
    check(rig, episode)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(steps, min_size=1, max_size=6), after=st.lists(steps, min_size=1, max_size=6))
def test_s29_a_gateway_killed_in_the_middle_charges_once(
    before: list[tuple[str, int]], after: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("sandbox")
    sandbox = SandboxProcess(folder)
    with asyncio.Runner() as runner:
        rig = Rig(sandbox, StripeGateway(sandbox.settings, deadline_ms=10_000), runner)
        try:
            episode = runner.run(new_episode(rig))
            for step, number in (("create", 1), ("confirm", 1), *before):
                runner.run(episode.do(step, number))
            sandbox.kill()
            runner.run(episode.do("confirm", 2))  # nobody there
            rig.sandbox = SandboxProcess(folder, port=sandbox.port)
            for step, number in after:
                runner.run(episode.do(step, number))
            check(rig, episode)
        finally:
            runner.run(rig.gateway.close())
            rig.sandbox.stop()
