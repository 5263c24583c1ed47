"""What a genuine webhook leads to: the payment is read, and the ledger follows the gateway.

Every entry has a key made of the gateway's own id of what happened, so however often and in whatever order webhooks
come, it is booked once. What cannot be done now is answered so, and the gateway sends it again (for days).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
import structlog

from billing.ledger import booking
from billing.ledger.booking import Booked
from billing.ledger.corrections import NotCredited, TakenBack, take_back
from billing.ledger.database import Pool, fetchrow
from billing.ledger.queries import query
from billing.money import minor_unit_micros
from billing.recharge import switches
from billing.recharge.gateway import Gateway, NotFound, Ok, PaymentStatus
from billing.recharge.intents import StoredIntent
from billing.recharge.payments import PaymentSweep
from billing.recharge.store import RechargeStore
from billing.webhooks import metrics
from billing.webhooks.signed import Notice
from billing.webhooks.taken_back import GoneBack, GoneBackReader, NotRead

log = structlog.get_logger(__name__)

AUTHOR = "billing/webhooks"

Outcome: TypeAlias = Literal["passed", "looked_at", "again"]


class Notices:
    """Raises what asyncpg raises: then too it must be sent again."""

    def __init__(self, store: RechargeStore, gateway: Gateway, gone_back: GoneBackReader, sweep: PaymentSweep) -> None:
        self._store = store
        self._gateway = gateway
        self._gone_back = gone_back
        self._sweep = sweep

    async def handle(self, notice: Notice) -> Outcome:
        """Do what the gateway's present state asks for."""
        if notice.payment is None or notice.kind == "other":
            return "passed"
        if notice.kind == "payment":
            return await self._payment(notice.payment)
        return await self._taken_back(notice.payment)

    async def _payment(self, payment: str) -> Outcome:
        """A worker drives an open intent and reads the payment itself; else a success is credited as by the sweep."""
        if await fetchrow(self._store.pool, query("recharge_webhooks.look_now"), payment) is not None:
            return "looked_at"
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

    async def _taken_back(self, payment: str) -> Outcome:
        stored = await self._store.find_by_payment(payment)
        if stored is None:
            return "passed"  # of another deployment, or nobody's: the sweep reports successes without an intent
        found = await self._gone_back.gone_back(payment)
        if isinstance(found, NotRead):
            log.warning("webhook.not_read", intent=stored.id, reason=found.reason)
            return "again"
        outcome: Outcome = "looked_at"
        for each in found:
            if not await self._book(stored, each):
                outcome = "again"
        return outcome

    async def _book(self, stored: StoredIntent, gone: GoneBack) -> bool:
        """Book it once; False where the payment itself must be booked first."""
        if gone.kind == "dispute_won":
            return await self._book_won(stored, gone)
        origin: TakenBack = "payment_refund" if gone.kind == "refund" else "chargeback"
        amount_micros = gone.amount_minor * minor_unit_micros(stored.currency)
        reason = f"{gone.kind} {gone.id} of payment {stored.intent.payment_id}"
        answer = await take_back(
            self._store.pool, stored.id, origin, amount_micros, reason, author=AUTHOR, key=_key(gone.kind, gone.id)
        )
        match answer:
            case Booked(repeated=repeated):
                if not repeated:
                    metrics.TAKEN_BACK.labels(origin).inc()
                    log.warning("webhook.taken_back", account=stored.account, intent=stored.id, kind=origin)
                return True
            case NotCredited():
                return False
        # more than the payment, say: booked by hand before, or of another amount; a person must look
        await _report(self._store.pool, stored, gone, type(answer).__name__)
        return True

    async def _book_won(self, stored: StoredIntent, gone: GoneBack) -> bool:
        """The bank gave the money back. Nothing is to be done where its going was never booked."""
        row = await fetchrow(self._store.pool, query("recharge_webhooks.chargeback_of"), _key("dispute", gone.id))
        if row is None:
            return True
        answer = await booking.adjust(
            self._store.pool,
            stored.account,
            -row["amount_micros"],
            f"dispute {gone.id} won: its chargeback came back",
            author=AUTHOR,
            key=_key("dispute_won", gone.id),
            corrects=row["entry_id"],
        )
        if not isinstance(answer, Booked):
            await _report(self._store.pool, stored, gone, type(answer).__name__)
        elif not answer.repeated:
            metrics.TAKEN_BACK.labels("dispute_won").inc()
        return True


def _key(kind: str, id_: str) -> str:
    return f"gateway:{kind}:{id_}"


async def _report(pool: Pool, stored: StoredIntent, gone: GoneBack, why: str) -> None:
    """Once per refund or dispute: a finding, and the account is neither charged nor suspended until somebody looked."""
    kind = f"payment_{gone.kind}_not_booked"
    if await fetchrow(pool, query("recharge_payments.find_finding"), kind, gone.id) is not None:
        return
    await switches.set_frozen(
        pool, stored.account, frozen=True, author=AUTHOR, reason=f"{gone.kind} {gone.id} cannot be booked: {why}"
    )
    detail = {"payment": stored.intent.payment_id, "amount_minor": gone.amount_minor, "why": why}
    text = msgspec.json.encode(detail).decode()
    await fetchrow(pool, query("recharge_payments.add_finding"), kind, stored.account, gone.id, text)
    log.error("webhook.not_booked", account=stored.account, intent=stored.id, kind=kind)
