"""The one verdict on a record of `usage.events`, shared by both consumers: pure, and total.

It depends on the record's bytes, its place and append time, and the catalogue: never on a clock. Where several
reasons make a record a dead letter, the first in DeadLetterReason's order is given.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from billing.rating.catalogue import Catalogue
from billing.rating.tariff import Tariff
from billing.stream.record import Record
from billing.usage.decode import Undecodable, decode
from billing.usage.ops import DeadLetter, Stray, UsageOp
from billing.usage.partitioner import home_partition
from billing.usage.priced import price_completion, price_event
from schemas.common import EPOCH, millis, moment
from schemas.reasons import DeadLetterReason
from schemas.usage import (
    CallCompletedEvent,
    CallProgressedEvent,
    CallStartedEvent,
    ItemCompletedEvent,
    MessageAcceptedEvent,
    MessageCompletedEvent,
    UsageEvent,
)

FUTURE_MS = 5 * 60_000
"""A time may be later than the record's append time by at most this."""

TOO_OLD_MS = 90 * 86_400_000
"""A time may be earlier than the record's append time by at most this."""

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


class NeedsHorizon(msgspec.Struct, frozen=True, gc=False):
    """No verdict yet: the catalogue must first be known to be complete up to `horizon_ms`."""

    horizon_ms: int


Op_co = TypeVar("Op_co", covariant=True)

Pricer: TypeAlias = Callable[[Record, UsageEvent, Tariff, datetime], "Op_co | DeadLetter | None"]
"""What an event asks for by its tariff, None for nothing; the moment is that of its price."""


# When the price of usage was fixed: where the event may say so, else its own time.
_TIME = attrgetter("time")
_PRICE_TIMES: dict[type, Callable[[Any], datetime | None]] = {
    CallStartedEvent: _TIME,
    CallProgressedEvent: attrgetter("data.answered_at"),
    CallCompletedEvent: attrgetter("data.answered_at"),
    MessageAcceptedEvent: _TIME,
    MessageCompletedEvent: attrgetter("data.accepted_at"),
    ItemCompletedEvent: _TIME,
}


class VerdictOf(Generic[Op_co]):
    """Verdicts against one catalogue, for topics of `partitions` partitions; `price` makes their operations.

    Times are compared as they came, with bounds made once for all records of one append time, not as milliseconds:
    the conversion would cost more than the comparison.
    """

    def __init__(self, catalogue: Catalogue, partitions: int, price: Pricer[Op_co]) -> None:
        self._catalogue = catalogue
        self._partitions = partitions
        self._price = price
        self._log_ms: int | None = None
        self._oldest = self._newest = EPOCH  # _oldest <= a time that is accepted < _newest
        self._horizon_ms: int | None = None
        self._horizon = _BEGINNING  # a price of this time, or later, has to wait

    def classify(self, record: Record) -> Op_co | DeadLetter | Stray | NeedsHorizon | None:
        """The verdict on `record`; None: it asks for nothing (a tick). Never raises, whatever the bytes."""
        event: Any = decode(record)
        price_time_of = _PRICE_TIMES.get(type(event))
        if price_time_of is None:
            return DeadLetter(record, event.reason, event.detail) if isinstance(event, Undecodable) else None
        account: str = event.subject
        if record.key != account.encode():
            return DeadLetter(record, DeadLetterReason.KEY_MISMATCH, "the key is not the subject")
        if record.timestamp != self._log_ms:
            self._set_bounds(record.timestamp)
        time: datetime = event.time
        price_time = price_time_of(event) or time
        if not self._oldest <= time < self._newest or (
            price_time is not time and not self._oldest <= price_time < self._newest
        ):
            return self._untimely(record, max(time, price_time))
        return self._for_account(record, event, account, price_time)

    def _untimely(self, record: Record, latest: datetime) -> DeadLetter:
        if latest >= self._newest:
            return DeadLetter(record, DeadLetterReason.TIME_IN_FUTURE, "more than five minutes after the record")
        return DeadLetter(record, DeadLetterReason.TIME_TOO_OLD, "more than 90 days before the record")

    def _for_account(
        self, record: Record, event: UsageEvent, account: str, price_time: datetime
    ) -> Op_co | DeadLetter | Stray | NeedsHorizon | None:
        catalogue = self._catalogue
        entry = catalogue.account(account)
        if entry is None:
            return self._unlisted(record, account)
        if record.partition != entry.home_partition:
            return DeadLetter(record, DeadLetterReason.WRONG_PARTITION, f"home is {entry.home_partition}")
        if record.offset < entry.usage_position:
            return DeadLetter(record, DeadLetterReason.UNKNOWN_ACCOUNT, f"opened at {entry.usage_position}")
        if catalogue.horizon_ms != self._horizon_ms:
            self._set_horizon(catalogue.horizon_ms)
        if price_time >= self._horizon:
            return NeedsHorizon(millis(price_time))
        tariff = catalogue.only_tariff(entry) or catalogue.price_plan(entry, millis(price_time))
        if tariff is None:
            return DeadLetter(record, DeadLetterReason.NO_PRICE, "the account's plan has no tariff")
        return self._price(record, event, tariff, price_time)

    def _set_bounds(self, log_ms: int) -> None:
        self._oldest = _moment(log_ms - TOO_OLD_MS)
        self._newest = _moment(log_ms + FUTURE_MS + 1)
        self._log_ms = log_ms

    def _set_horizon(self, horizon_ms: int | None) -> None:
        self._horizon = _BEGINNING if horizon_ms is None else _moment(horizon_ms + 1)
        self._horizon_ms = horizon_ms

    def _unlisted(self, record: Record, account: str) -> DeadLetter | Stray:
        home = home_partition(account, self._partitions)
        if record.partition != home:
            return DeadLetter(record, DeadLetterReason.WRONG_PARTITION, f"home is {home}")
        return Stray(record, account, record.offset)


Verdict: TypeAlias = UsageOp | NeedsHorizon | None


class Classifier(VerdictOf[UsageOp]):
    """The verdict in full: holds, and charges with everything that the ledger keeps."""

    def __init__(self, catalogue: Catalogue, partitions: int) -> None:
        super().__init__(catalogue, partitions, price_event)


class LedgerClassifier(VerdictOf[UsageOp]):
    """The same but for holds, which ask nothing of the ledger: None."""

    def __init__(self, catalogue: Catalogue, partitions: int) -> None:
        super().__init__(catalogue, partitions, price_completion)


def _moment(time_ms: int) -> datetime:
    """The datetime of `time_ms`, or the nearest one that there is."""
    try:
        return moment(time_ms)
    except OverflowError:
        return _BEGINNING if time_ms < 0 else _END
