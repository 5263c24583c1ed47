"""What a dead letter would have cost, and what would become of it if it were published again now. Pure.

Both are asked of the one verdict (`classify`), against a catalogue as the ledger has it now: the first of the record as
if it had come in time, in its place and after its account was opened, the second of the record as it would come now.
"""

from __future__ import annotations

from typing import NamedTuple

from billing.rating.catalogue import Catalogue
from billing.stream.record import Record, StoredRecord
from billing.usage.classify import Classifier, NeedsHorizon, Verdict
from billing.usage.decode import Undecodable, decode
from billing.usage.ops import Charge, DeadLetter, SessionKind, Stray
from billing.usage.partitioner import home_partition
from billing.usage.subject import subject_of
from schemas.common import millis
from schemas.reasons import DeadLetterReason
from schemas.usage import Tick

_LATE = 2**62
"""An offset after every account's opening."""


class Worth(NamedTuple):
    """`amount_micros` in `currency` would have been charged for the session; None where that cannot be said, `why` in
    words. Records that charge nothing themselves (a call that begins) are worth 0 without a session."""

    amount_micros: int | None
    currency: str | None
    why: str
    account: str | None = None
    kind: SessionKind | None = None
    session: str | None = None


class Outlook(NamedTuple):
    """What a record would be if it came at the end of `partition` now: a dead letter for `reason`, or (None) not."""

    partition: int
    reason: DeadLetterReason | None
    detail: str


def worth_of(record: Record, catalogue: Catalogue, partitions: int) -> Worth:
    """What the event in `record` would have cost."""
    event = decode(record)
    if isinstance(event, Undecodable):
        return Worth(None, None, f"not an event: {event.reason.value}")
    if isinstance(event, Tick):
        return Worth(0, None, "a tick")
    home = _home(event.subject, catalogue, partitions)
    in_time = _at(record, home, millis(event.time))._replace(key=event.subject.encode())
    verdict = Classifier(catalogue, partitions).classify(in_time)
    if isinstance(verdict, Charge):
        session = (verdict.account, verdict.kind, verdict.session)
        return Worth(verdict.amount_micros, verdict.currency, "", *session)
    why = _unpriced(verdict)
    return Worth(0, None, "charges nothing by itself", event.subject) if why is None else Worth(None, None, why)


def _unpriced(verdict: Verdict) -> str | None:
    """Why a verdict has no price; None for what charges nothing (a hold)."""
    match verdict:
        case DeadLetter():
            return f"{verdict.reason.value}: {verdict.detail}"
        case Stray():
            return "unknown_account: its plan is not known"
        case NeedsHorizon():
            return "its tariff is not yet final"
        case _:
            return None


def outlook_of(record: Record, catalogue: Catalogue, partitions: int, now_ms: int) -> Outlook:
    """What `record` would be if it were published again now, to its account's home partition."""
    subject = subject_of(record)
    home = record.partition if subject is None else _home(subject, catalogue, partitions)
    verdict = Classifier(catalogue, partitions).classify(_at(record, home, now_ms))
    match verdict:
        case DeadLetter():
            return Outlook(home, verdict.reason, verdict.detail)
        case Stray():
            return Outlook(home, DeadLetterReason.UNKNOWN_ACCOUNT, "no such account")
        case _:
            return Outlook(home, None, "")


def _home(account: str, catalogue: Catalogue, partitions: int) -> int:
    entry = catalogue.account(account)
    return home_partition(account, partitions) if entry is None else entry.home_partition


def _at(record: Record, partition: int, timestamp_ms: int) -> StoredRecord:
    headers = tuple((name, value) for name, value in record.headers)
    return StoredRecord(record.topic, partition, _LATE, timestamp_ms, record.key, record.value, headers)
