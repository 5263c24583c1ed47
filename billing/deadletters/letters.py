"""Dead letters as they are stored, with what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

import asyncpg
import msgspec

from billing.ledger.database import Pool, fetch, fetchrow
from billing.ledger.queries import query
from billing.stream.record import StoredRecord
from schemas.deadletter import DeadLetterRow, DeadLetterState, base64_text, header_rows
from schemas.reasons import DeadLetterReason

PAGE_SIZE = 500
_headers = msgspec.json.Decoder(list[tuple[str, bytes | None]])


class Place(NamedTuple):
    """Which letter: the record's place in the log. `topic` is the logical name, without the namespace."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters; None is any. Times are the log's, ms since 1970 UTC, `until_ms` excluded."""

    reason: DeadLetterReason | None = None
    account: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    topic: str | None = None
    partition: int | None = None
    states: tuple[DeadLetterState, ...] | None = None
    stored_by: datetime | None = None  # not later than this, by the ledger's clock

    def parameters(self) -> tuple[object, ...]:
        return (
            *(self.reason and self.reason.value, self.account, self.since_ms, self.until_ms),
            *(self.topic, self.partition, self.states and list(self.states), self.stored_by),
        )


EVERY = Filter()


@dataclass(frozen=True, slots=True)
class Letter:
    """`record.topic` is the logical name; `became` is where its replay is in the log."""

    place: Place
    record: StoredRecord
    reason: DeadLetterReason
    detail: str
    account: str | None
    stored_at: datetime
    state: DeadLetterState
    became: Place | None

    def row(self) -> DeadLetterRow:
        """As it is shown."""
        return DeadLetterRow(
            topic=self.place.topic,
            partition=self.place.partition,
            offset=self.place.offset,
            timestamp_ms=self.record.timestamp,
            reason=self.reason,
            detail=self.detail,
            key_base64=base64_text(self.record.key),
            value_base64=base64_text(self.record.value),
            headers=header_rows(self.record.headers),
            account=self.account,
            state=self.state,
        )


ActionKind: TypeAlias = Literal["asked", "published", "discarded"]


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody did with a letter."""

    kind: ActionKind
    author: str
    reason: str
    acted_at: datetime
    to_partition: int | None
    to_offset: int | None


async def letters(pool: Pool, which: Filter = EVERY, *, page_size: int = PAGE_SIZE) -> AsyncIterator[Letter]:
    """The letters by topic, partition and offset, read page by page."""
    after = Place("", -1, -1)
    while True:
        rows = await fetch(pool, query("dead_letters.page"), *after, page_size, *which.parameters())
        for row in rows:
            yield _letter(row)
        if len(rows) < page_size:
            return
        last = rows[-1]
        after = Place(last["topic"], last["partition"], last["log_offset"])


async def total(pool: Pool, which: Filter = EVERY) -> int:
    """How many letters there are."""
    row = await fetchrow(pool, query("dead_letters.total"), *which.parameters())
    assert row is not None
    found: int = row[0]
    return found


async def now(pool: Pool) -> datetime:
    """The ledger's clock, which stored_at comes from."""
    row = await fetchrow(pool, query("dead_letters.now"))
    assert row is not None
    found: datetime = row[0]
    return found


async def letters_at(pool: Pool, places: Sequence[Place]) -> list[Letter]:
    """Those of `places` that are letters, in their order."""
    topics, partitions, offsets = columns(places)
    return [_letter(row) for row in await fetch(pool, query("dead_letters.at"), topics, partitions, offsets)]


async def actions(pool: Pool, place: Place) -> list[Action]:
    """What was done with a letter, in order."""
    return [Action(**row) for row in await fetch(pool, query("dead_letters.actions"), *place)]


async def replayed_from(pool: Pool, place: Place) -> Place | None:
    """The letter whose replay the record at `place` is."""
    row = await fetchrow(pool, query("dead_letters.replayed_from"), *place)
    return None if row is None else Place(place.topic, row["partition"], row["log_offset"])


def columns(places: Sequence[Place]) -> tuple[list[str], list[int], list[int]]:
    """Topics, partitions and offsets, as queries take them."""
    return [p.topic for p in places], [p.partition for p in places], [p.offset for p in places]


def _letter(row: asyncpg.Record) -> Letter:
    place = Place(row["topic"], row["partition"], row["log_offset"])
    headers = tuple(_headers.decode(row["headers"]))
    became = None if row["to_offset"] is None else Place(place.topic, row["to_partition"], row["to_offset"])
    record = StoredRecord(*place, row["log_time_ms"], row["key"], row["value"], headers)  # type: ignore[arg-type]
    return Letter(
        place,
        record,
        DeadLetterReason(row["reason"]),
        row["detail"],
        row["account_id"],
        row["stored_at"],
        row["state"],
        became,
    )
