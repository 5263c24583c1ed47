"""The gateway's recent payments, held against the ledger: a success that nobody credited is credited once (S29, S50).

The list is the gateway's word, so it finds what no intent remembers: an answer that was lost, a payment declared lost
that succeeded later. What does not fit an intent is a finding, and its account is frozen until a person has looked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, TypeAlias

import structlog

from billing.ledger.database import fetch, fetchrow
from billing.ledger.queries import query
from billing.recharge import metrics
from billing.recharge.crediting import CreditBooked
from billing.recharge.gateway import Gateway, Page, Payment, PaymentStatus
from billing.recharge.intents import StoredIntent
from billing.recharge.payment_findings import report
from billing.recharge.protocol import IllegalEvent, PaymentSucceeded
from billing.recharge.store import RechargeStore
from billing.stream.backoff import Clock

log = structlog.get_logger(__name__)

AUTHOR = "billing/recharge"
BUSY_MS = 60_000
PAGE = 100
PAGE_PACE_S = 0.1
MOST_PAGES = 5_000  # half a million payments; beyond it the next look goes on with the newest again

Outcome: TypeAlias = Literal[
    "credited", "not_ours", "other_timeline", "other_currency", "second_of_episode", "without_intent", "not_booked"
]
_FINDINGS: frozenset[Outcome] = frozenset({"other_timeline", "other_currency", "second_of_episode", "without_intent"})


class PaymentSweep:
    """Looks at what the gateway lists and credits what is missing; frozen or not, because the money has moved."""

    def __init__(self, store: RechargeStore, gateway: Gateway, clock: Clock) -> None:
        self._store = store
        self._gateway = gateway
        self._clock = clock
        self.complete = False  # whether the last look saw the whole list

    async def look(self, since_ms: int) -> dict[Outcome, int]:
        """Go through the payments made since then; what was done about the uncredited ones. Raises what asyncpg
        raises; a gateway that is away ends the look early."""
        done: dict[Outcome, int] = {}
        async for payments in self._pages(since_ms):
            paid = {p.id: p for p in payments if p.status is PaymentStatus.SUCCEEDED}
            rows = await fetch(self._store.pool, query("recharge_payments.uncredited"), list(paid), BUSY_MS)
            for row in rows:
                outcome = await self._settle(paid[row["id"]])
                metrics.found_payments.labels(outcome).inc()
                done[outcome] = done.get(outcome, 0) + 1
        return done

    async def look_at(self, payment: Payment) -> Outcome | None:
        """Of one payment that has succeeded, as read from the gateway; None where it is credited, or a worker is about
        to."""
        if not await fetch(self._store.pool, query("recharge_payments.uncredited"), [payment.id], BUSY_MS):
            return None
        outcome = await self._settle(payment)
        metrics.found_payments.labels(outcome).inc()
        return outcome

    async def _pages(self, since_ms: int) -> AsyncIterator[tuple[Payment, ...]]:
        after: str | None = None
        self.complete = False
        for _ in range(MOST_PAGES):
            page = await self._gateway.list_recent(since_ms=since_ms, after=after, limit=PAGE)
            if not isinstance(page, Page):
                log.warning("recharge.list_unknown", outcome=type(page).__name__)
                return
            yield page.payments
            after = page.next_after
            if after is None:
                self.complete = True
                return
            await self._clock.sleep(PAGE_PACE_S)

    async def _settle(self, payment: Payment) -> Outcome:
        stored = await self._intent_of(payment)
        outcome = await self._no_intent(payment) if stored is None else await self._credit(stored, payment)
        if outcome in _FINDINGS:
            await self._report(payment, stored, outcome)
        return outcome

    async def _intent_of(self, payment: Payment) -> StoredIntent | None:
        """The intent that remembers it, or the one that its metadata name."""
        stored = await self._store.find_by_payment(payment.id)
        if stored is None and (meta := payment.metadata) is not None:
            stored = await self._store.find_by_episode(meta.account, meta.episode, meta.timeline)
        return stored

    async def _credit(self, stored: StoredIntent, payment: Payment) -> Outcome:
        if payment.currency != stored.currency:
            return "other_currency"
        try:
            answer = await self._store.credit(stored.id, PaymentSucceeded(payment.id, payment.amount_received_minor))
        except IllegalEvent:  # the intent has another payment: money moved twice for one episode
            return "second_of_episode"
        if not isinstance(answer, CreditBooked):
            log.error("recharge.not_credited", intent=stored.id, reason=answer.reason)
            return "not_booked"
        log.warning("recharge.found_payment", account=stored.account, intent=stored.id, state=stored.state.value)
        return "credited"

    async def _no_intent(self, payment: Payment) -> Outcome:
        meta = payment.metadata
        if meta is None:
            return "not_ours"
        switch = await self._store.switch()
        if meta.timeline == switch.timeline:
            return "without_intent"
        row = await fetchrow(self._store.pool, query("recharge_payments.knows_timeline"), meta.timeline)
        # a timeline that this ledger never had is another deployment's on the same gateway account
        return "other_timeline" if row is not None and row[0] else "not_ours"

    async def _report(self, payment: Payment, stored: StoredIntent | None, outcome: Outcome) -> None:
        """Once per payment: a finding, and the account is neither charged nor suspended until someone has looked."""
        account = stored.account if stored is not None else payment.metadata.account if payment.metadata else None
        detail = {
            "payment": payment.id,
            "received_minor": payment.amount_received_minor,
            "currency": payment.currency,
            "timeline": payment.metadata.timeline if payment.metadata else None,
            "episode": payment.metadata.episode if payment.metadata else None,
        }
        kind, reason = f"payment_{outcome}", f"payment {payment.id} at the gateway: {outcome.replace('_', ' ')}"
        if await report(self._store.pool, kind, account, payment.id, detail, author=AUTHOR, reason=reason):
            log.error("recharge.payment_finding", kind=kind, account=account, payment=payment.id)
