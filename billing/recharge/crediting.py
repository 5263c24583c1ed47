"""Booking the credit of a payment that succeeded: once, whatever the intent's state was (S50)."""

from __future__ import annotations

from dataclasses import dataclass

from billing.ledger.booking import Booked, EntryRequest, book
from billing.ledger.database import Connection, Pool
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.money import minor_unit_micros
from billing.recharge import intents, metrics
from billing.recharge.intents import StoredIntent
from billing.recharge.protocol import Credited, PaymentSucceeded, State, step

AUTHOR = "billing/recharge"


@dataclass(frozen=True, slots=True)
class CreditBooked:
    """The credit is in the ledger as entry `intent.intent.credit_seq`. `repeated`: it was there before."""

    intent: StoredIntent
    repeated: bool


@dataclass(frozen=True, slots=True)
class NotCredited:
    """Nothing was booked: the payment has not succeeded, or the ledger refuses the amount (a person must look)."""

    intent: StoredIntent
    reason: str


CreditAnswer = CreditBooked | NotCredited


def credit_key(timeline: str, account: str, episode: int) -> str:
    """The idempotency key of the ledger's entry."""
    return f"recharge:{timeline}:{account}:{episode}:credit"


async def credit(pool: Pool, intent: int, success: PaymentSucceeded | None = None) -> CreditAnswer:
    """Book the amount received and move the intent to `credited`, in one transaction; needs no lease.

    `success` is applied first where it is given: a payment counts from whatever state, a closed one included. Raises
    LookupError for no such intent, IllegalEvent for another intent's payment, and what asyncpg raises: repeat then.
    """
    before, answer = await in_transaction(pool, lambda connection: _credit(connection, intent, success))
    intents.count_change(before, answer.intent)
    if isinstance(answer, CreditBooked) and not answer.repeated:
        received = answer.intent.intent.received_minor or 0
        unit_micros = minor_unit_micros(answer.intent.currency)
        metrics.credited_micros.labels(answer.intent.currency).inc(received * unit_micros)
    return answer


async def _credit(
    connection: Connection, intent: int, success: PaymentSucceeded | None
) -> tuple[StoredIntent, CreditAnswer]:
    found = await connection.fetchrow(query("recharge_intents.by_id"), intent)
    if found is None:
        raise LookupError(f"there is no intent {intent}")
    # the account's row first, as everywhere: booking takes it anyway
    await connection.fetchrow(query("accounts.lock"), found["account_id"])
    now = before = intents.from_row(await connection.fetchrow(query("recharge_intents.lock"), intent))
    if success is not None and (after := step(now.intent, success)) != now.intent:
        now = await intents.overrule(connection, now, after, fence=False)
    if now.intent.credit_seq is not None:
        return before, CreditBooked(now, repeated=True)
    if now.state is not State.SUCCEEDED or now.intent.received_minor is None:
        return before, NotCredited(now, f"the payment has not succeeded: the intent is {now.state}")
    booked = await book(connection, _request(now, now.intent.received_minor))
    if not isinstance(booked, Booked):
        return before, NotCredited(now, f"the ledger refuses the entry: {booked}")
    after = step(now.intent, Credited(booked.ledger_seq))
    return before, CreditBooked(await intents.overrule(connection, now, after, fence=False), repeated=False)


def _request(stored: StoredIntent, received_minor: int) -> EntryRequest:
    return EntryRequest(
        account=stored.account,
        amount_micros=received_minor * minor_unit_micros(stored.currency),
        origin="recharge",
        reason=f"payment {stored.intent.payment_id}, episode {stored.episode}",
        author=AUTHOR,
        key=credit_key(stored.timeline, stored.account, stored.episode),
    )
