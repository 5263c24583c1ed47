"""The one verdict on a record of `usage.events`, shared by both consumers: pure, and total.

It depends on the record's bytes, its place and append time, and the catalogue: never on a clock. Where several
reasons make a record a dead letter, the first in DeadLetterReason's order is given.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

import msgspec

from billing.rating.catalogue import Catalogue
from billing.stream.record import Record
from billing.usage.decode import Undecodable, decode
from billing.usage.ops import DeadLetter, Stray, UsageOp
from billing.usage.partitioner import home_partition
from billing.usage.priced import price_event
from schemas.common import millis
from schemas.reasons import DeadLetterReason
from schemas.usage import CallCompletedEvent, CallProgressedEvent, MessageCompletedEvent, Tick, UsageEvent

FUTURE_MS = 5 * 60_000
"""A time may be later than the record's append time by at most this."""

TOO_OLD_MS = 90 * 86_400_000
"""A time may be earlier than the record's append time by at most this."""


class NeedsHorizon(msgspec.Struct, frozen=True, gc=False):
    """No verdict yet: the catalogue must first be known to be complete up to `horizon_ms`."""

    horizon_ms: int


Verdict: TypeAlias = UsageOp | NeedsHorizon | None
"""None: the record means nothing (a tick)."""


class Classifier:
    """Verdicts against one catalogue, for topics of `partitions` partitions."""

    def __init__(self, catalogue: Catalogue, partitions: int) -> None:
        self._catalogue = catalogue
        self._partitions = partitions

    def classify(self, record: Record) -> Verdict:
        """The verdict on `record`. Never raises, whatever the bytes."""
        event = decode(record)
        if isinstance(event, Undecodable):
            return DeadLetter(record, event.reason, event.detail)
        if isinstance(event, Tick):
            return None
        account = event.subject
        if record.key != account.encode():
            return DeadLetter(record, DeadLetterReason.KEY_MISMATCH, "the key is not the subject")
        log_ms = record.timestamp
        time_ms = price_ms = millis(event.time)
        price_moment = _price_moment(event)
        if price_moment is not None:
            price_ms = millis(price_moment)
        if time_ms > log_ms + FUTURE_MS or price_ms > log_ms + FUTURE_MS:
            return DeadLetter(record, DeadLetterReason.TIME_IN_FUTURE, "more than five minutes after the record")
        if time_ms < log_ms - TOO_OLD_MS or price_ms < log_ms - TOO_OLD_MS:
            return DeadLetter(record, DeadLetterReason.TIME_TOO_OLD, "more than 90 days before the record")
        return self._for_account(record, event, account, price_ms)

    def _for_account(self, record: Record, event: UsageEvent, account: str, price_ms: int) -> Verdict:
        catalogue = self._catalogue
        entry = catalogue.account(account)
        if entry is None:
            return self._unlisted(record, account)
        if record.partition != entry.home_partition:
            return DeadLetter(record, DeadLetterReason.WRONG_PARTITION, f"home is {entry.home_partition}")
        if record.offset < entry.usage_position:
            return DeadLetter(record, DeadLetterReason.UNKNOWN_ACCOUNT, f"opened at {entry.usage_position}")
        horizon_ms = catalogue.horizon_ms
        if horizon_ms is None or price_ms > horizon_ms:
            return NeedsHorizon(price_ms)
        tariff = catalogue.price_plan(entry, price_ms)
        if tariff is None:
            return DeadLetter(record, DeadLetterReason.NO_PRICE, "the account's plan has no tariff")
        return price_event(record, event, tariff, price_ms)

    def _unlisted(self, record: Record, account: str) -> Verdict:
        home = home_partition(account, self._partitions)
        if record.partition != home:
            return DeadLetter(record, DeadLetterReason.WRONG_PARTITION, f"home is {home}")
        return Stray(record, account, record.offset)


def _price_moment(event: UsageEvent) -> datetime | None:
    """When the price was fixed, where the event says so; else its `time` counts."""
    match event:
        case CallCompletedEvent() | CallProgressedEvent():
            return event.data.answered_at
        case MessageCompletedEvent():
            return event.data.accepted_at
        case _:
            return None
