"""What the tests of the webhooks' sweep share: a ledger, and a gateway whose webhooks nobody hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recharge_support import NO_WAIT, Books

from billing.lab.sandbox.process import SandboxProcess
from billing.recharge.payments import PaymentSweep
from billing.recharge.store import RechargeStore
from billing.recharge.stripe_gateway import StripeGateway
from billing.stream.backoff import SystemClock
from billing.webhooks.notices import Notices
from billing.webhooks.signed import Notice
from billing.webhooks.sweep import Sweep
from billing.webhooks.taken_back import GoneBack, NotRead, StripeGoneBack


class CountedReads(StripeGoneBack):
    """Counts the payments that are read; `before` is called before each."""

    reads = 0
    before: Callable[[], None] = staticmethod(lambda: None)

    async def gone_back(self, payment: str) -> tuple[GoneBack, ...] | NotRead:
        self.reads += 1
        self.before()
        return await super().gone_back(payment)


@dataclass
class Unheard:
    """A ledger, and a gateway whose webhooks nobody hears."""

    books: Books
    sandbox: SandboxProcess
    reader: CountedReads
    notices: Notices
    sweep: Sweep

    def pay(self) -> str:
        """A payment of 20.00 at the gateway; its id."""
        form = {
            **{"amount": "2000", "currency": "usd", "confirm": "true"},
            **{"payment_method": "pm_card_visa", "allowed_payment_method_types[0]": "card"},
        }
        paid = self.sandbox.controls._ask("POST", "/v1/payment_intents", form=form)
        assert paid["status"] == "succeeded"
        return str(paid["id"])

    async def paid(self, account: str) -> str:
        """An account that was recharged by 20.00, credited; the payment's id."""
        payment = await asyncio.to_thread(self.pay)
        await self.books.confirmed(await self.books.opened(account, await self.books.low(account)), payment)
        return payment

    async def refund(self, payment: str, amount_minor: int) -> str:
        return await asyncio.to_thread(self.sandbox.controls.refund, payment, amount_minor)

    async def fail(self, refund: str) -> None:
        await asyncio.to_thread(self.sandbox.controls.fail_refund, refund)

    async def webhook(self, payment: str) -> None:
        """One comes after all."""
        assert await self.notices.handle(Notice("evt_1", "refund.updated", "taken_back", payment)) == "looked_at"

    async def entries(self, account: str) -> list[tuple[str, int]]:
        """What went back of the account's payments, and what came again."""
        rows = await self.books.pool.fetch(
            "select j.origin, p.amount_micros from journal j join postings p on p.journal_id = j.id"
            " where p.account_id = $1 and j.origin in ('payment_refund', 'chargeback') order by j.id",
            account,
        )
        return [(row["origin"], row["amount_micros"]) for row in rows]


def make_sweep(store: RechargeStore, reader: StripeGoneBack, notices: Notices, **named: Any) -> Sweep:
    return Sweep(store, reader, notices, SystemClock(), **{"window_days": 90, **named})


@asynccontextmanager
async def unheard_by(books: Books, folder: Path) -> AsyncIterator[Unheard]:
    """With a sandbox whose state is in `folder`."""
    sandbox = await asyncio.to_thread(SandboxProcess, folder)
    gateway = StripeGateway(sandbox.settings, deadline_ms=5_000)
    reader = CountedReads(sandbox.settings, deadline_ms=5_000)
    books.store = RechargeStore(books.store.pool, NO_WAIT)
    notices = Notices(books.store, gateway, reader, PaymentSweep(books.store, gateway, SystemClock()))
    found = Unheard(books, sandbox, reader, notices, make_sweep(books.store, reader, notices))
    try:
        yield found
    finally:
        await gateway.close()
        await reader.close()
        found.sandbox.stop()
