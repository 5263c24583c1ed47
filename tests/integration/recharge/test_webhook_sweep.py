"""Refunds and disputes whose webhooks never came: the sweep finds them at the gateway, books them once (S34, S35)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import REGISTRY
from recharge_support import UNIT, Books
from stripe import WebhookSignature
from unheard_support import Unheard, make_sweep, unheard_by

from billing.lab.sandbox.process import SandboxProcess
from billing.lab.supervise import Consumer
from billing.lab.waiting import until
from billing.ledger.database import open_pool
from billing.ledger.taken_back import take_back
from billing.recharge.store import RechargeStore
from billing.settings import Settings
from billing.webhooks.http import PATH
from billing.webhooks.taken_back import NotRead


@pytest.fixture
async def unheard(books: Books, tmp_path: Path) -> AsyncIterator[Unheard]:
    async with unheard_by(books, tmp_path / "sandbox") as found:
        yield found


def swept(outcome: str) -> float:
    """How many sweeps ended so, in this process."""
    return REGISTRY.get_sample_value("billing_webhook_sweeps_total", {"outcome": outcome}) or 0.0


async def test_s34_a_refund_and_a_dispute_that_no_webhook_told_are_booked_once(unheard: Unheard) -> None:
    """Also with webhooks at the same time and later; nothing is read again that was booked."""
    acme, bella = await unheard.paid("acme"), await unheard.paid("bella")
    await unheard.paid("carol")
    await unheard.refund(acme, 500)
    dispute = await asyncio.to_thread(unheard.sandbox.controls.dispute, bella, 1000)
    await asyncio.gather(unheard.sweep.sweep(), *(unheard.webhook(payment) for payment in (acme, bella) * 4))
    assert unheard.sweep.last == "complete"
    reads = unheard.reader.reads
    assert reads == 8 + 2  # carol's payment, of which nothing is listed, is not read
    for _ in range(2):
        assert await unheard.sweep.sweep() == "complete"
    assert unheard.reader.reads == reads
    await unheard.webhook(acme)
    assert await unheard.entries("acme") == [("payment_refund", -5 * UNIT)]
    assert await unheard.entries("bella") == [("chargeback", -10 * UNIT)]
    assert await unheard.entries("carol") == []
    await asyncio.to_thread(unheard.sandbox.controls.close_dispute, dispute, "won")
    assert await unheard.sweep.sweep() == "complete"
    await unheard.webhook(bella)
    assert await unheard.entries("bella") == [("chargeback", -10 * UNIT), ("chargeback", 10 * UNIT)]
    await unheard.books.verified()


async def test_s34_a_refund_that_fails_after_it_was_booked_is_found_and_what_could_not_be_booked_is_read_again(
    unheard: Unheard,
) -> None:
    acme, bella = await unheard.paid("acme"), await unheard.paid("bella")
    told = await unheard.refund(acme, 500)
    await unheard.webhook(acme)
    failed = await unheard.refund(bella, 300)
    for refund in (told, failed):
        await unheard.fail(refund)
    assert await unheard.sweep.sweep() == "complete"
    assert await unheard.entries("acme") == [("payment_refund", -5 * UNIT), ("payment_refund", 5 * UNIT)]
    assert await unheard.entries("bella") == []  # it came back before its going was booked
    # a webhook that had read the refund before it failed books it only now
    number = await unheard.books.pool.fetchval("select id from recharge_intents where account_id = 'bella'")
    named = {"author": "late", "reason": "read before", "gateway_id": failed}
    await take_back(unheard.books.pool, number, "payment_refund", 3 * UNIT, named.pop("reason"), **named)
    assert await unheard.sweep.sweep() == "complete"
    assert await unheard.entries("bella") == [("payment_refund", -3 * UNIT), ("payment_refund", 3 * UNIT)]
    reads = unheard.reader.reads
    assert await unheard.sweep.sweep() == "complete"
    assert unheard.reader.reads == reads
    await unheard.books.verified()


async def test_s34_all_pages_are_looked_at_up_to_a_bound_and_of_other_deployments_nothing_is_read(
    unheard: Unheard,
) -> None:
    acme = await unheard.paid("acme")
    await unheard.refund(acme, 100)
    stranger = await asyncio.to_thread(unheard.pay)
    for _ in range(101):
        await unheard.refund(stranger, 1)
    bounded = make_sweep(unheard.books.store, unheard.reader, unheard.notices, most_pages=1)
    assert await bounded.sweep() == "partial"
    assert await unheard.entries("acme") == []
    assert await unheard.sweep.sweep() == "complete"
    assert await unheard.entries("acme") == [("payment_refund", -1 * UNIT)]
    assert unheard.reader.reads == 1
    later = await unheard.reader.recent("refunds", int(time.time()) + 60)
    assert not isinstance(later, NotRead)
    assert (later.listed, later.next_after) == ((), None)


async def test_s34_a_sweep_ends_while_the_gateway_or_the_ledger_is_away_and_the_next_one_books(
    unheard: Unheard, settings: Settings
) -> None:
    for account in ("acme", "bella"):
        await unheard.refund(await unheard.paid(account), 700)
    before = {outcome: swept(outcome) for outcome in ("gateway_away", "ledger_away", "complete")}
    unheard.reader.before = unheard.sandbox.kill  # after it has listed
    assert await unheard.sweep.sweep() == "gateway_away"
    assert unheard.reader.reads == 2  # one payment alone would say little
    unheard.reader.before = lambda: None
    assert await unheard.sweep.sweep() == "gateway_away"
    folder, port = unheard.sandbox.folder, unheard.sandbox.port
    unheard.sandbox = await asyncio.to_thread(lambda: SandboxProcess(folder, port=port))
    nowhere = await open_pool("postgresql://u:p@127.0.0.1:1/none")
    assert await make_sweep(RechargeStore(nowhere), unheard.reader, unheard.notices).sweep() == "ledger_away"
    assert await unheard.sweep.sweep() == "complete"
    for account in ("acme", "bella"):
        assert await unheard.entries(account) == [("payment_refund", -7 * UNIT)]
    grown = {outcome: swept(outcome) - count for outcome, count in before.items()}
    assert grown == {"gateway_away": 2, "ledger_away": 1, "complete": 1}


async def test_s34_a_payment_that_cannot_be_read_hides_no_other(unheard: Unheard) -> None:
    for account in ("acme", "bella"):
        await unheard.refund(await unheard.paid(account), 700)
    unheard.reader._deadline_s = 0.5

    def silent_at_the_first() -> None:
        os.kill(unheard.sandbox.pid, signal.SIGSTOP if unheard.reader.reads == 1 else signal.SIGCONT)

    unheard.reader.before = silent_at_the_first
    assert await unheard.sweep.sweep() == "partial"
    booked = [account for account in ("acme", "bella") if await unheard.entries(account)]
    assert len(booked) == 1
    assert await unheard.sweep.sweep() == "complete"
    for account in ("acme", "bella"):
        assert await unheard.entries(account) == [("payment_refund", -7 * UNIT)]


async def test_s34_what_went_back_of_a_payment_that_is_not_credited_waits_for_the_credit(unheard: Unheard) -> None:
    payment = await asyncio.to_thread(unheard.pay)
    stored = await unheard.books.opened("acme", await unheard.books.low("acme"))
    stored = await unheard.books.charged(stored, payment)
    await unheard.refund(payment, 2000)
    assert await unheard.sweep.sweep() == "partial"
    await unheard.books.store.credit(stored.id)
    assert await unheard.sweep.sweep() == "complete"
    assert await unheard.entries("acme") == [("payment_refund", -20 * UNIT)]
    await unheard.books.verified()


async def test_s34_the_process_sweeps_at_its_start_and_then_again_and_again(
    unheard: Unheard, settings: Settings, tmp_path: Path
) -> None:
    payment = await unheard.paid("acme")
    await unheard.refund(payment, 500)
    environ = {
        "BILLING_STRIPE_API_BASE": unheard.sandbox.settings.api_base,
        "BILLING_STRIPE_API_KEY": unheard.sandbox.settings.api_key,
        "BILLING_STRIPE_WEBHOOK_SECRET": (secret := "whsec_" + "0" * 32),
        "BILLING_WEBHOOK_ADDRESS": "127.0.0.1:0",
        "BILLING_WEBHOOK_SWEEP_SECONDS": "1",
    }
    consumer = Consumer("webhooks", "webhooks", settings, tmp_path, environ)
    consumer.start()
    try:
        await consumer.ready()
        back = [("payment_refund", -5 * UNIT)]
        for amount_minor in (300, 200):
            await _until_entries(unheard, back)
            await unheard.refund(payment, amount_minor)
            back.append(("payment_refund", -amount_minor * UNIT // 100))
        await _until_entries(unheard, back)
        health = await consumer.health()
        assert health is not None
        assert health["last_sweep"] == "complete"
        event = {"id": "evt_1", "type": "charge.refunded", "data": {"object": {"id": "x", "payment_intent": payment}}}
        text = json.dumps(event)
        headers = {"Stripe-Signature": WebhookSignature.generate_signature_header(text, secret, int(time.time()))}
        url = f"http://127.0.0.1:{health['webhook_port']}{PATH}"
        async with aiohttp.ClientSession() as session, session.post(url, data=text, headers=headers) as response:
            assert response.status == 200
        assert await unheard.entries("acme") == back
        assert await consumer.stop()
    finally:
        await consumer.kill()
    await unheard.books.verified()


async def _until_entries(unheard: Unheard, wanted: list[tuple[str, int]]) -> None:
    async def there() -> bool:
        return await unheard.entries("acme") == wanted

    await until(there, f"acme: {wanted}", timeout_seconds=20)
