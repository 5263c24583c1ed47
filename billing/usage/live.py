"""From an event and the tariff that prices it to what the balance store is asked: the in-flight consumer's operation.

Of a charge the store needs no more than a fifth of what the ledger keeps, so this is a plain tuple: with the ledger's
`Charge` the consumer would spend another 1.3 us an event."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from billing.money import MAX_MICROS
from billing.rating.catalogue import Catalogue
from billing.rating.tariff import Tariff
from billing.stream.record import Record
from billing.usage.amounts import AMOUNTS
from billing.usage.classify import VerdictOf
from billing.usage.ops import CALL_LEASE_MS, LETTERS, MESSAGE_LEASE_MS, Charge, DeadLetter, Hold, session_key
from billing.usage.priced import no_price, out_of_range
from schemas.usage import (
    CallCompletedEvent,
    CallProgressedEvent,
    CallStartedEvent,
    ItemCompletedEvent,
    MessageAcceptedEvent,
    MessageCompletedEvent,
    UsageEvent,
)

LiveOp: TypeAlias = tuple[int, int, str, str, int, str, int, int]
"""(HOLD or CHARGE, offset, account, session key, amount in micro-units, currency, elapsed, end of the lease in ms);
the currency is "" for a hold, the last two are 0 for a charge."""

HOLD, CHARGE = 1, 2
_HOLDS: dict[type, tuple[str, int]] = {
    CallStartedEvent: (LETTERS["call"], CALL_LEASE_MS),
    CallProgressedEvent: (LETTERS["call"], CALL_LEASE_MS),
    MessageAcceptedEvent: (LETTERS["message"], MESSAGE_LEASE_MS),
}
_CHARGES: dict[type, str] = {
    CallCompletedEvent: LETTERS["call"],
    MessageCompletedEvent: LETTERS["message"],
    ItemCompletedEvent: LETTERS["item"],
}


def price_live(record: Record, event: UsageEvent, tariff: Tariff, _: datetime) -> LiveOp | DeadLetter:
    """`billing.usage.priced.price_event` for the balance store: same amounts, same refusals."""
    type_ = type(event)
    amount = AMOUNTS[type_](event.data, tariff)
    if amount is None:
        return no_price(record)
    session, _rate, amount_micros, elapsed = amount
    if amount_micros > MAX_MICROS:
        return out_of_range(record)
    account = event.subject
    letter = _CHARGES.get(type_)
    if letter is not None:
        return CHARGE, record.offset, account, f"{letter}/{account}/{session}", amount_micros, tariff.currency, 0, 0
    letter, lease_ms = _HOLDS[type_]
    lease_end_ms = record.timestamp + lease_ms
    return HOLD, record.offset, account, f"{letter}/{account}/{session}", amount_micros, "", elapsed, lease_end_ms


class LiveClassifier(VerdictOf[LiveOp]):
    """The verdict with what the balance store needs."""

    def __init__(self, catalogue: Catalogue, partitions: int) -> None:
        super().__init__(catalogue, partitions, price_live)


def live(op: Hold | Charge) -> LiveOp:
    """What the store is asked for an operation of the other kind (rebuild, tests)."""
    session = session_key(op.kind, op.account, op.session)
    if isinstance(op, Charge):
        return CHARGE, op.offset, op.account, session, op.amount_micros, op.currency, 0, 0
    return HOLD, op.offset, op.account, session, op.amount_micros, "", op.elapsed, op.log_time_ms + op.lease_ms
