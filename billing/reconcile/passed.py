"""Reading passed holds back from the log, for the derivation of single accounts (`billing.balance.passed`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing

import structlog

from billing.balance.passed import Span
from billing.balance.records import HoldRecord
from billing.reconcile.holds import OpenHolds
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway, OutOfRange
from billing.usage.classify import Classifier, NeedsHorizon
from billing.usage.ops import Stray, session_key

log = structlog.get_logger(__name__)

MOST_RECORDS = 200_000
"""Of the partition, read back for one round: holds passed before them wait for their session's next event."""


class LogPassedHolds:
    """`billing.balance.passed.PassedHolds` over Kafka. `catch_up` brings the classifier's catalogue to its end: what
    was passed because the catalogue did not list its account has to be priced now."""

    def __init__(
        self, reader: LogReader, topic: str, classifier: Classifier, catch_up: Callable[[], Awaitable[None]]
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._classifier = classifier
        self._catch_up = catch_up

    async def read(self, partition: int, spans: Mapping[str, Span]) -> Mapping[str, Mapping[str, HoldRecord]] | None:
        """One pass over the part of the log that holds all spans."""
        try:
            await self._catch_up()
            found = await self._open_holds(partition, spans)
        except (LogAway, OutOfRange) as error:
            log.warning("passed_holds.away", partition=partition, error=str(error))
            return None
        return {account: _by_key(holds) for account, holds in found.items()}

    async def _open_holds(self, partition: int, spans: Mapping[str, Span]) -> dict[str, OpenHolds]:
        end = max(span.end for span in spans.values())
        wanted = min(span.first for span in spans.values())
        start = max(wanted, end - MOST_RECORDS, (await self._reader.bounds(self._topic, partition)).start)
        if start > wanted:
            log.warning("passed_holds.cut", partition=partition, offset=wanted, position=start)
        found = {account: OpenHolds() for account in spans}
        by_key = {account.encode(): account for account in spans}
        async with aclosing(self._reader.read(self._topic, partition, start, end)) as records:
            async for record in records:
                account = by_key.get(record.key or b"", "")
                if account not in found or not spans[account].first <= record.offset < spans[account].end:
                    continue
                verdict = self._classifier.classify(record)
                if isinstance(verdict, NeedsHorizon | Stray):
                    del found[account]  # not now: its account stays unknown until it can be priced
                else:
                    found[account].take(verdict, record.timestamp)
        return found


def _by_key(holds: OpenHolds) -> dict[str, HoldRecord]:
    """Lapsed ones too: the store ends their leases as it would have, with a signal."""
    return {session_key(*session): hold for session, hold in holds.open_at(0).items()}
