"""Between two steps of the worker: what happens there, on real servers and a real sandbox, driven step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from recharge_harness import UNIT, Recharging, recharging

from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.proof import Durability
from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.devstack.valkey import ValkeyServer
from billing.guard.watch import guarding
from billing.lab.waiting import until
from billing.ledger.booking import Booked, credit
from billing.recharge.balances import Balances
from billing.recharge.card_saver import CardSaver
from billing.recharge.driver import Driver
from billing.recharge.evaluation import Opened
from billing.recharge.gateway import Metadata, Ok, PaymentOutcome, PaymentRequest, Rejected, Unknown
from billing.recharge.intents import StoredIntent
from billing.recharge.payments import PaymentSweep
from billing.recharge.protocol import State
from billing.recharge.store import RechargeStore
from billing.recharge.stripe_gateway import StripeGateway
from billing.recharge.views import AccountView
from billing.stream.backoff import SystemClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASE_MS = 20_000


class Interfering(StripeGateway):
    """The real gateway, with something that happens right after a payment was made, and answers that get lost."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.after_create: Callable[[], Any] | None = None
        self.lose: PaymentOutcome | None = None

    async def create(self, request: PaymentRequest, *, idempotency_key: str) -> PaymentOutcome:
        outcome = await super().create(request, idempotency_key=idempotency_key)
        if self.after_create is not None:
            await self.after_create()
        return self.lose or outcome


@dataclass
class Steps:
    """A deployment without a worker process: this test is the worker."""

    deployment: Recharging
    store: RechargeStore
    gateway: Interfering
    balances: Balances
    driver: Driver
    discovered_url: str

    async def sweep(self) -> dict[str, int]:
        """What was done about uncredited payments; findings come again in each look."""
        found = await PaymentSweep(self.store, self.gateway, SystemClock()).look(0)
        return {str(outcome): count for outcome, count in found.items()}

    async def open_low(self, account: str) -> StoredIntent:
        """An account below its threshold, its card saved, its intent opened."""
        await self.deployment.open(account)
        await self.deployment.lower(account)
        await self.deployment.until_booked(account)
        assert await CardSaver(self.store.pool, self.gateway).save(account)
        answer = await self.store.evaluate(
            account, (await self.balances.look(account)).view, owner="test", ttl_ms=LEASE_MS
        )
        assert isinstance(answer, Opened), answer
        return answer.intent

    async def drive(self, stored: StoredIntent) -> StoredIntent:
        """One turn; the intent afterwards."""
        await self.driver.drive(self.driver.turn(stored, SystemClock().monotonic()))
        found = await self.store.find(stored.id)
        assert found is not None
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Steps]:
    clock, folder = SystemClock(), tmp_path_factory.mktemp("recharging")
    async with (
        isolated(services) as settings,
        recharging(settings, folder, worker=False) as deployment,
        guarding(settings) as guard,
    ):
        client, store = open_client(settings.redis_url), RechargeStore(deployment.pool)
        gateway = Interfering(deployment.sandbox.settings, deadline_ms=5_000)
        balances = Balances(
            Functions(client, settings.key_space),
            settings.topics,
            guard=guard,
            discover=lambda: open_client(made.discovered_url, timeout_s=2),
            clock=clock,
            durability=Durability(),
        )
        driver = Driver(store, gateway, balances, clock, gateway_deadline_ms=5_000, lease_ms=LEASE_MS)
        made = Steps(deployment, store, gateway, balances, driver, settings.redis_url)
        try:
            yield made
        finally:
            await gateway.close()
            await client.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def steps(shared: Steps) -> Steps:
    """With nothing left over from the test before."""
    shared.gateway.after_create = shared.gateway.lose = None
    shared.discovered_url = shared.deployment.settings.redis_url
    return shared


async def test_s48_a_credit_between_the_check_and_the_charge_withdraws_it(steps: Steps) -> None:
    stored = await steps.open_low("s48")

    async def cheque() -> None:
        assert isinstance(await credit(steps.store.pool, "s48", 50 * UNIT, "a cheque", author="tests"), Booked)

    steps.gateway.after_create = cheque
    stored = await steps.drive(stored)
    assert stored.state is State.CANCELLED
    assert stored.intent.reason in ("ledger_disagrees", "not_below_threshold")  # Redis may have heard of it, too
    (payment,) = await steps.deployment.payments("s48")
    assert payment["status"] == "canceled"
    assert await steps.deployment.charges("s48") == []


async def test_s49_a_proof_that_finds_another_server_refuses_the_charge(
    steps: Steps, private_valkey: Callable[..., ValkeyServer]
) -> None:
    """We talk to an isolated old primary; whoever connects anew finds the one in force."""
    steps.discovered_url = private_valkey().url
    stored = await steps.open_low("s49")
    stored = await steps.drive(stored)
    assert (stored.state, stored.intent.reason) == (State.REFUSED, "proof_failed")
    assert await steps.deployment.payments("s49") == []


async def test_s50_a_payment_declared_lost_succeeds_later_and_is_credited_once(steps: Steps) -> None:
    """The answer to create was lost, and the gateway would not repeat it: the intent is closed. Then somebody confirms
    that payment. The sweep credits it once, for the episode that its metadata name, and that one is never charged."""
    stored = await steps.open_low("s50")
    steps.gateway.lose = Rejected("idempotency_error", "the key was used with other parameters")
    stored = await steps.drive(stored)
    assert (stored.state, stored.intent.payment_id) == (State.REFUSED, None)
    (payment,) = await steps.deployment.payments("s50")
    await steps.deployment.confirm_by_hand(payment["id"])
    assert (await steps.sweep())["credited"] == 1
    assert "credited" not in await steps.sweep()
    found = await steps.store.find(stored.id)
    assert found is not None
    assert (found.state, found.late, found.intent.payment_id) == (State.CREDITED, True, payment["id"])
    found = await steps.drive(found)
    assert found.state is State.CONFIRMED
    await steps.deployment.assert_one_charge("s50")
    assert await _episode(steps, "s50") == 2


async def test_s29_the_answer_to_create_is_lost_and_the_same_key_finds_the_payment(steps: Steps) -> None:
    stored = await steps.open_low("s29-create")
    steps.gateway.lose = Unknown("connection: ServerDisconnectedError")
    stored = await steps.drive(stored)
    assert stored.state is State.PROVING
    steps.gateway.lose = None
    (again,) = [each for each in await _leased(steps) if each.id == stored.id]
    stored = await steps.drive(again)
    assert stored.state is State.CONFIRMED
    assert len(await steps.deployment.payments("s29-create")) == 1
    await steps.deployment.assert_one_charge("s29-create")


async def test_s28_a_success_of_a_forgotten_intent_is_a_finding_and_freezes_its_account(steps: Steps) -> None:
    """A payment that names an episode of this ledger which it does not have: nothing is credited silently."""
    stored = await steps.open_low("s28")
    stored = await steps.drive(stored)
    assert stored.state is State.CONFIRMED
    (payment,) = await steps.deployment.charged("s28")
    other = await _pay_elsewhere(steps, stored, payment, episode=7)
    assert (await steps.sweep())["without_intent"] == 1
    assert (await steps.sweep())["without_intent"] == 1
    assert await steps.deployment.credits("s28") == [20 * UNIT]
    found = await steps.store.pool.fetch("select kind, account_id, session_id from findings where account_id = 's28'")
    assert [tuple(row) for row in found] == [("payment_without_intent", "s28", other)]
    assert await _frozen(steps, "s28")


async def test_s50_a_second_payment_of_an_episode_is_a_finding(steps: Steps) -> None:
    stored = await steps.drive(await steps.open_low("twice"))
    (payment,) = await steps.deployment.charged("twice")
    await _pay_elsewhere(steps, stored, payment, stored.episode)
    assert (await steps.sweep())["second_of_episode"] == 1
    assert await steps.deployment.credits("twice") == [20 * UNIT]


async def test_a_payment_of_another_deployment_is_none_of_ours(steps: Steps) -> None:
    stored = await steps.drive(await steps.open_low("ours"))
    (payment,) = await steps.deployment.charged("ours")
    await _pay_elsewhere(steps, stored, payment, 1, timeline="of-another-deployment")
    assert (await steps.sweep())["not_ours"] == 1
    assert not await _frozen(steps, "ours")


async def _pay_elsewhere(
    steps: Steps, stored: StoredIntent, payment: dict[str, Any], episode: int, timeline: str | None = None
) -> str:
    """Another payment of the same card succeeds, which no intent asked for; its id."""
    request = PaymentRequest(
        metadata=Metadata(stored.account, episode, timeline or stored.timeline),
        customer=payment["customer"],
        payment_method=payment["payment_method"],
        amount_minor=stored.amount_minor,
        currency=stored.currency,
    )
    outcome = await steps.gateway.create(request, idempotency_key=f"elsewhere:{stored.account}")
    assert isinstance(outcome, Ok)
    await steps.deployment.confirm_by_hand(outcome.payment.id)
    return outcome.payment.id


async def _frozen(steps: Steps, account: str) -> bool:
    view = await steps.store.view(account)
    assert isinstance(view, AccountView)
    return view.ledger.frozen


async def _episode(steps: Steps, account: str) -> int:
    episode: int = await steps.store.pool.fetchval(
        "select episode from recharge_episodes where account_id = $1", account
    )
    return episode


async def _leased(steps: Steps) -> list[StoredIntent]:
    """Once its time has come again."""
    found: list[StoredIntent] = []

    async def leased() -> bool:
        found.extend(await steps.store.lease(10, "test", LEASE_MS))
        return bool(found)

    await until(leased, "the intent's time")
    return found
