"""Webhooks against a whole deployment, the sandbox sending them signed, and others trying (S34, S35)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from command_runner import billing_json
from recharge_harness import UNIT, Recharging, recharging
from stripe import WebhookSignature

from billing.lab.supervise import Consumer
from billing.lab.waiting import until
from billing.ledger.verify import verify
from billing.settings import Settings
from billing.webhooks.http import LARGEST_BYTES, PATH

OTHER_SECRET = "whsec_" + "0" * 32


@dataclass
class Told:
    """A deployment that recharges, and its webhook endpoint."""

    settings: Settings
    recharging: Recharging
    consumer: Consumer
    url: str
    secret: str
    session: aiohttp.ClientSession

    async def post(self, body: Any, *, secret: str | None = None, at_s: float | None = None) -> int:
        """The status that the endpoint answers to `body`, signed."""
        text = body if isinstance(body, str) else json.dumps(body)
        header = WebhookSignature.generate_signature_header(text, secret or self.secret, int(at_s or time.time()))
        async with self.session.post(self.url, data=text, headers={"Stripe-Signature": header}) as response:
            return response.status

    async def paid(self, account: str) -> str:
        """An account that was recharged by 20.00; the payment's id."""
        await self.recharging.open(account)
        await self.recharging.lower(account)
        await self.recharging.until_state(account, "confirmed")
        await self.recharging.assert_one_charge(account)
        return str((await self.recharging.intents(account))[0]["payment_id"])

    async def entries(self, account: str) -> list[tuple[str, int]]:
        rows = await self.recharging.pool.fetch(
            "select j.origin, p.amount_micros from journal j join postings p on p.journal_id = j.id"
            " where p.account_id = $1 and j.kind = 'entry' order by j.id",
            account,
        )
        return [(row["origin"], row["amount_micros"]) for row in rows]

    async def until_entries(self, account: str, *wanted: tuple[str, int]) -> None:
        async def there() -> bool:
            return sorted(await self.entries(account)) == sorted(wanted)

        await until(there, f"{account}: {wanted}", timeout_seconds=30)

    async def settled_by_hand(self, account: str, refunds: list[tuple[int, str]]) -> None:
        """Refunds in minor units that an operator books as what they say, and the webhook of them afterwards."""
        payment, opening = await self.paid(account), await self.entries(account)
        number = str((await self.recharging.intents(account))[0]["id"])
        taken_back = ("recharges", "taken-back", number, "--refund", "--by", "ann", "--reason", "asked", "--no-wait")
        for amount, said in refunds:
            refund = await asyncio.to_thread(self.recharging.sandbox.controls.refund, payment, amount)
            await billing_json(self.settings, *taken_back, "--gateway-id", refund, "--amount", said)
        assert await self.post(event("charge.refunded", id="ch_1", payment_intent=payment)) == 200
        by_hand = [("payment_refund", -round(float(said) * UNIT)) for _, said in refunds]
        await self.until_entries(account, *opening, *by_hand)


def event(type_: str, **object_: Any) -> dict[str, Any]:
    return {"id": "evt_1", "object": "event", "type": type_, "data": {"object": object_}}


@pytest.fixture
async def told(settings: Settings, tmp_path: Path) -> AsyncIterator[Told]:
    async with recharging(settings, tmp_path) as found, aiohttp.ClientSession() as session:
        secret = found.sandbox.controls.tell(None)
        environ = {
            "BILLING_STRIPE_API_BASE": found.sandbox.settings.api_base,
            "BILLING_STRIPE_API_KEY": found.sandbox.settings.api_key,
            "BILLING_STRIPE_WEBHOOK_SECRET": f"{OTHER_SECRET[:-1]}1,{secret}",
            "BILLING_WEBHOOK_ADDRESS": "127.0.0.1:0",
        }
        consumer = found.consumers["webhooks"] = Consumer("webhooks", "webhooks", settings, found.logs, environ)
        consumer.start()
        await consumer.ready()
        health = await consumer.health()
        assert health is not None
        url = f"http://127.0.0.1:{health['webhook_port']}{PATH}"
        found.sandbox.controls.tell(url)
        made = found.sandbox
        yield Told(settings, found, consumer, url, secret, session)
        if found.sandbox is not made:
            found.sandbox.stop()


async def test_s34_forged_stale_repeated_and_reordered_webhooks_change_nothing(told: Told) -> None:
    payment = await told.paid("acme")
    succeeded = event("payment_intent.succeeded", id=payment, amount_received=999_999, status="succeeded")
    now_s = time.time()
    assert await told.post(succeeded, secret=OTHER_SECRET) == 400
    assert await told.post(succeeded, at_s=now_s - 301) == 400
    assert await told.post(succeeded, at_s=now_s + 400) == 400
    assert await told.post("{") == 400
    assert await told.post({"type": "payment_intent.succeeded"}) == 400
    assert await told.post("x" * (LARGEST_BYTES + 1)) == 413
    async with told.session.post(told.url, data=json.dumps(succeeded)) as unsigned:
        assert unsigned.status == 400
    old = [
        event(f"payment_intent.{name}", id=payment) for name in ("canceled", "payment_failed", "processing", "created")
    ]
    answers = await asyncio.gather(*(told.post(body) for body in [*old, succeeded] * 8))
    assert set(answers) == {200}
    assert await told.post(event("payment_intent.succeeded", id="pi_of_another_deployment")) == 200
    assert await told.post(event("charge.refunded", id="ch_1", payment_intent="pi_of_another_deployment")) == 200
    assert await told.post(event("charge.refunded", id="ch_1", payment_intent=payment, amount_refunded=2000)) == 200
    assert await told.post(event("customer.created", id="cus_1")) == 200
    assert await told.recharging.states("acme") == ["confirmed"]
    await told.recharging.assert_one_charge("acme")
    assert [origin for origin, _ in await told.entries("acme")] == ["recharge"]
    assert "999999" not in told.consumer.log.read_text()  # R12


async def test_s34_s35_refunds_and_disputes_are_booked_once_as_the_gateway_has_them(told: Told) -> None:
    """Told by the sandbox, and by repeats of ours at the same time, while the ledger's books are used."""
    payment = await told.paid("acme")
    opening = await told.entries("acme")
    controls = told.recharging.sandbox.controls
    await asyncio.to_thread(controls.refund, payment, 500)
    dispute = await asyncio.to_thread(controls.dispute, payment, 1000)
    repeats = [
        event("charge.dispute.created", id=dispute, payment_intent=payment, amount=1),
        event("refund.created", id="re_1", payment_intent=payment),
    ]
    assert set(await asyncio.gather(*(told.post(body) for body in repeats * 10))) == {200}
    back = [("payment_refund", -5 * UNIT), ("chargeback", -10 * UNIT)]
    await told.until_entries("acme", *opening, *back)
    for body in repeats * 2:
        assert await told.post(body) == 200
    await told.until_entries("acme", *opening, *back)
    assert [check for check in await verify(told.recharging.pool) if not check.passed] == []
    assert len(await told.recharging.charged("acme")) == 1  # R5: what went back makes nobody due


async def test_s34_a_dispute_that_is_won_and_a_refund_that_fails_give_the_credit_again(
    told: Told,
) -> None:
    """Once each, against the accounts that the money had gone to; old webhooks after that change nothing."""
    payment = await told.paid("acme")
    opening = await told.entries("acme")
    controls, pool = told.recharging.sandbox.controls, told.recharging.pool
    refund = await asyncio.to_thread(controls.refund, payment, 500)
    dispute = await asyncio.to_thread(controls.dispute, payment, 1000)
    back = [("payment_refund", -5 * UNIT), ("chargeback", -10 * UNIT)]
    await told.until_entries("acme", *opening, *back)
    await asyncio.to_thread(controls.fail_refund, refund)
    await asyncio.to_thread(controls.close_dispute, dispute, "won")
    again = [("payment_refund", 5 * UNIT), ("chargeback", 10 * UNIT)]
    await told.until_entries("acme", *opening, *back, *again)
    old = [
        event("refund.failed", id=refund, payment_intent=payment, status="failed"),
        event("refund.created", id=refund, payment_intent=payment, status="succeeded"),
        event("charge.dispute.created", id=dispute, payment_intent=payment),
    ]
    assert set(await asyncio.gather(*(told.post(body) for body in old * 5))) == {200}
    await told.until_entries("acme", *opening, *back, *again)
    sql = "select coalesce(sum(amount_micros), 0)::bigint from postings where ledger_account = $1"
    assert await pool.fetchval(sql, "chargebacks") == 0
    assert await pool.fetchval(sql, "gateway_clearing") == -20 * UNIT
    assert [check for check in await verify(pool) if not check.passed] == []


async def test_s34_what_cannot_be_done_now_is_sent_again_and_what_was_booked_by_hand_is_not(told: Told) -> None:
    """The gateway is away while a webhook comes: it is asked to send it again, and later it is booked."""
    payment = await told.paid("acme")
    opening = await told.entries("acme")
    told.recharging.sandbox.controls.tell(None)
    await asyncio.to_thread(told.recharging.sandbox.controls.refund, payment, 700)
    refunded = event("charge.refunded", id="ch_1", payment_intent=payment)
    port, folder = told.recharging.sandbox.port, told.recharging.sandbox.folder
    await asyncio.to_thread(told.recharging.sandbox.kill)
    assert await told.post(refunded) == 503
    told.recharging.sandbox = await asyncio.to_thread(lambda: type(told.recharging.sandbox)(folder, port=port))
    assert await told.post(refunded) == 200
    await told.until_entries("acme", *opening, ("payment_refund", -7 * UNIT))
    # by hand, under the gateway's id, before its webhook comes; with another amount somebody has to look
    await told.settled_by_hand("bella", [(300, "3"), (400, "4.50")])
    findings = await told.recharging.pool.fetch("select kind, account_id from findings")
    assert [tuple(finding) for finding in findings] == [("payment_refund_not_booked", "bella")]
