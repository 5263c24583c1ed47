"""The gateway and the worker fail in the middle of a charge: one charge, one credit, read back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from recharge_harness import UNIT, Recharging, recharging

from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.lab.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONGER_THAN_A_CALL_S = 2.5
MIDDLE_OF_A_CALL_S = 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recharging]:
    folder: Path = tmp_path_factory.mktemp("recharging")
    async with isolated(services) as settings, recharging(settings, folder) as deployment:
        yield deployment


@pytest_asyncio.fixture(loop_scope="module")
async def deployment(shared: Recharging) -> AsyncIterator[Recharging]:
    """With a worker that runs, and a gateway without faults left over."""
    shared.sandbox.controls.clear_faults()
    if not shared.worker.running:
        shared.worker.start()
        await shared.worker.ready()
    yield shared


async def _until_confirming(deployment: Recharging, account: str) -> None:
    """The gateway has the call: the intent says so before it goes out, the delay is taken when it came in."""
    await deployment.until_state(account, "confirming")
    await until(lambda: deployment.sandbox.controls.faults() == [], "the charge under way")


async def test_s30_the_gateway_times_out_and_charges_later(deployment: Recharging) -> None:
    """The unknown outcome blocks new intents and is settled by reading the payment."""
    await deployment.open("s30-late")
    deployment.sandbox.controls.add_fault("delay", seconds=LONGER_THAN_A_CALL_S)
    await deployment.lower("s30-late")
    await _until_confirming(deployment, "s30-late")
    await deployment.signal_low("s30-late", 20)
    await deployment.until_refused("s30-late", "intent_open")
    await deployment.until_state("s30-late", "confirmed", seconds=30)
    await deployment.assert_one_charge("s30-late")


@pytest.mark.parametrize("fault", ["error_after_confirm", "cut_after_confirm"])
async def test_s30_the_answer_is_lost_after_the_charge(deployment: Recharging, fault: str) -> None:
    account = f"s30-{fault}"
    await deployment.open(account)
    deployment.sandbox.controls.add_fault(fault)  # type: ignore[arg-type]  # one of its kinds
    await deployment.lower(account)
    await deployment.until_state(account, "confirmed")
    await deployment.assert_one_charge(account)


async def test_s29_the_worker_is_killed_in_the_middle_of_the_charge(deployment: Recharging) -> None:
    await deployment.open("s29")
    deployment.sandbox.controls.add_fault("delay", seconds=MIDDLE_OF_A_CALL_S)
    await deployment.lower("s29")
    await _until_confirming(deployment, "s29")
    await deployment.worker.kill()
    deployment.worker.start()
    await deployment.worker.ready()
    await deployment.until_state("s29", "confirmed", seconds=30)
    await deployment.assert_one_charge("s29")


async def test_s33_keys_forgotten_while_the_worker_is_asleep(deployment: Recharging) -> None:
    """The remembered payment is read; with its key forgotten, confirming blindly again would be another try."""
    await deployment.open("s33")
    deployment.sandbox.controls.add_fault("delay", seconds=MIDDLE_OF_A_CALL_S)
    await deployment.lower("s33")
    await _until_confirming(deployment, "s33")
    deployment.worker.signal(signal.SIGSTOP)
    try:

        async def charged() -> bool:
            return len(await deployment.charged("s33")) == 1

        await until(charged, "the charge that nobody waits for")
        assert deployment.sandbox.controls.forget_keys() > 0
        await asyncio.sleep(5)  # longer than its lease: it wakes up as somebody who may do nothing more
    finally:
        deployment.worker.signal(signal.SIGCONT)
    await deployment.until_state("s33", "confirmed", seconds=30)
    await deployment.assert_one_charge("s33")


async def test_s37_a_worker_paused_past_its_lease_does_nothing_more(deployment: Recharging) -> None:
    await deployment.open("s37")
    deployment.sandbox.controls.add_fault("delay", seconds=MIDDLE_OF_A_CALL_S)
    await deployment.lower("s37")
    await _until_confirming(deployment, "s37")
    deployment.worker.signal(signal.SIGSTOP)
    try:
        other = await deployment.add_worker("recharge-other")
        await deployment.until_state("s37", "confirmed", seconds=30)
        owners = {row["lease_owner"] for row in await deployment.intents("s37")}
    finally:
        deployment.worker.signal(signal.SIGCONT)
    await until(lambda: any("lease_lost" in line for line in deployment.worker.last_lines()), "that it noticed")
    await deployment.assert_one_charge("s37")
    assert len(owners) == 1
    assert await other.stop()


async def test_s32_no_second_charge_until_the_credit_is_read_back(deployment: Recharging) -> None:
    """The relay is dead when the card is charged, so Redis cannot show the credit; usage goes on."""
    await deployment.open("s32")
    await deployment.use("s32", 80_000)
    await deployment.until_booked("s32")  # everybody knows the account
    await deployment.consumers["relay"].kill()
    await deployment.lower("s32")
    await deployment.until_state("s32", "credited")
    await deployment.use("s32", 4_000_000)
    await deployment.signal_low("s32", 5)
    await deployment.until_refused("s32", "ledger_disagrees")  # the ledger has the credit already
    await deployment.use("s32", 20_000_000)  # low in both books by now
    await deployment.signal_low("s32", 5)
    await deployment.until_refused("s32", "intent_open")
    assert await deployment.states("s32") == ["credited"]
    assert len(await deployment.charged("s32")) == 1
    deployment.consumers["relay"].start()
    await deployment.until_state("s32", "confirmed", seconds=60)
    assert await deployment.credits("s32") == [20 * UNIT]
    await deployment.assert_one_charge("s32")
