"""What a genuine webhook leads to: the payment is read, and the ledger follows the gateway.

Every entry has a key made of the gateway's own id of what happened, so however often and in whatever order webhooks
come, it is booked once. What cannot be done now is answered so, and the gateway sends it again (for days).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeAlias

import structlog

from billing.ledger.booking import Booked
from billing.ledger.database import Pool, fetchrow
from billing.ledger.queries import query
from billing.ledger.taken_back import NotCredited, NotTaken, TakenBack, TakenBackAnswer, came_back, take_back
from billing.money import minor_unit_micros
from billing.recharge.gateway import Gateway, NotFound, Ok, PaymentStatus
from billing.recharge.intents import StoredIntent
from billing.recharge.payment_findings import report
from billing.recharge.payments import PaymentSweep
from billing.recharge.store import RechargeStore
from billing.webhooks import metrics
from billing.webhooks.signed import Notice
from billing.webhooks.taken_back import GoneBack, GoneBackReader, NotRead

log = structlog.get_logger(__name__)

AUTHOR = "billing/webhooks"

STRANGERS_PER_S, STRANGERS_AT_ONCE = 5.0, 20

Outcome: TypeAlias = Literal["passed", "looked_at", "again", "left_to_sweep"]

Books: TypeAlias = Literal["booked", "unbooked", "uncredited"]
"""What the ledger has of what went back: all of it; not all, and nothing more can be booked (its going was not booked,
or a person must look); nothing yet, because the payment itself is not credited."""


class Allowance:
    """So many a second, and at most `most` at once. `clock` gives seconds."""

    def __init__(self, per_s: float, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._most = most
        self._clock = clock
        self._left, self._at_s = float(most), clock()

    def take(self) -> bool:
        """Whether there is one left, which is then gone."""
        now_s = self._clock()
        self._left = min(float(self._most), self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Notices:
    """Raises what asyncpg raises: then too it must be sent again."""

    def __init__(self, store: RechargeStore, gateway: Gateway, gone_back: GoneBackReader, sweep: PaymentSweep) -> None:
        self._store = store
        self._gateway = gateway
        self._gone_back = gone_back
        self._sweep = sweep
        self._strangers = Allowance(STRANGERS_PER_S, STRANGERS_AT_ONCE)

    async def handle(self, notice: Notice) -> Outcome:
        """Do what the gateway's present state asks for."""
        if notice.payment is None or notice.kind == "other":
            return "passed"
        if notice.kind == "payment":
            return await self._payment(notice.payment)
        found = await self.taken_back(notice.payment)
        if found == "passed":
            return "passed"
        return "again" if found == "uncredited" or isinstance(found, NotRead) else "looked_at"

    async def taken_back(self, payment: str) -> Books | Literal["passed"] | NotRead:
        """Book what the gateway says went back of a payment, or came again, each once whoever asks for it: a webhook or
        the sweep."""
        stored = await self._store.find_by_payment(payment)
        if stored is None:
            return "passed"  # of another deployment, or nobody's: PaymentSweep reports successes without an intent
        found = await self._gone_back.gone_back(payment)
        if isinstance(found, NotRead):
            log.warning("webhook.not_read", intent=stored.id, reason=found.reason)
            return found
        books = {await self._book(stored, each) for each in found}
        if "uncredited" in books:
            return "uncredited"
        return "unbooked" if "unbooked" in books else "booked"

    async def _payment(self, payment: str) -> Outcome:
        """A worker drives an open intent and reads the payment itself; else a success is credited as by the sweep.

        Another deployment's payments cost a read of the gateway each; beyond a rate they are left to the sweep, which
        finds whatever of them is ours.
        """
        if await fetchrow(self._store.pool, query("recharge_webhooks.look_now"), payment) is not None:
            return "looked_at"
        if await self._store.find_by_payment(payment) is None and not self._strangers.take():
            return "left_to_sweep"
        read = await self._gateway.read(payment)
        match read:
            case Ok(payment=found) if found.status is PaymentStatus.SUCCEEDED:
                await self._sweep.look_at(found)
                return "looked_at"
            case Ok():
                return "looked_at"
            case NotFound():
                return "passed"
        return "again"

    async def _book(self, stored: StoredIntent, gone: GoneBack) -> Books:
        """Book it once."""
        origin: TakenBack = "payment_refund" if gone.kind in {"refund", "refund_failed"} else "chargeback"
        reason = f"{gone.kind.replace('_', ' ')} {gone.id} of payment {stored.intent.payment_id}"
        answer: TakenBackAnswer | NotTaken
        if gone.kind in {"refund_failed", "dispute_won"}:
            answer = await came_back(self._store.pool, origin, reason, author=AUTHOR, gateway_id=gone.id)
        else:
            amount_micros = gone.amount_minor * minor_unit_micros(stored.currency)
            answer = await take_back(
                self._store.pool, stored.id, origin, amount_micros, reason, author=AUTHOR, gateway_id=gone.id
            )
        match answer:
            case Booked(repeated=False):
                metrics.BOOKED.labels(gone.kind).inc()
                log.warning("webhook.booked", account=stored.account, intent=stored.id, kind=gone.kind)
                return "booked"
            case Booked():
                return "booked"
            case NotTaken():  # nothing is to be done where its going was never booked
                return "unbooked"
            case NotCredited():
                return "uncredited"
        # more than the payment, say, or booked by hand with another amount: a person must look
        await _report(self._store.pool, stored, gone, type(answer).__name__)
        return "unbooked"


async def _report(pool: Pool, stored: StoredIntent, gone: GoneBack, why: str) -> None:
    """Once per refund or dispute: a finding, and the account is neither charged nor suspended until somebody looked."""
    kind = f"payment_{gone.kind}_not_booked"
    detail = {"payment": stored.intent.payment_id, "amount_minor": gone.amount_minor, "why": why}
    reason = f"{gone.kind} {gone.id} cannot be booked: {why}"
    if await report(pool, kind, stored.account, gone.id, detail, author=AUTHOR, reason=reason):
        log.error("webhook.not_booked", account=stored.account, intent=stored.id, kind=kind)
