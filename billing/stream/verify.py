"""Is this still the log that the sink's position was taken in? (S06, S15, S17, S18)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from billing.stream.log import Bounds, Reader
from billing.stream.record import Position, Record, fingerprint


@dataclass(frozen=True, slots=True)
class Matches:
    """Go on. `log_time_ms` is the timestamp of the last consumed record, None where it was not read."""

    log_time_ms: int | None


@dataclass(frozen=True, slots=True)
class AtEndOfRetention:
    """Retention removed the last consumed record, but nothing after it either: go on, with a warning."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Another log, or records were lost: halt the partition."""

    reason: str


Verdict: TypeAlias = Matches | AtEndOfRetention | Mismatch


async def check_position(
    reader: Reader, topic: str, partition: int, position: Position, *, held: bool = False
) -> Verdict:
    """Compare a sink's position with the log. `held`: an earlier check of this claim passed and we have been reading
    from there since. Raises LogAway; that is not a mismatch."""
    bounds = await reader.bounds(topic, partition)
    last = position.last_offset
    if last is None or last < bounds.start or position.offset > bounds.end:
        return judge(position, bounds, None, held=held)
    return judge(position, bounds, await reader.record_at(topic, partition, last), held=held)


def judge(  # noqa: PLR0911 - one return for each rule
    position: Position, bounds: Bounds, last_record: Record | None, *, held: bool = False
) -> Verdict:
    """The rules, pure, in their order. `last_record` is the record at `position.last_offset`, if there is one."""
    last = position.last_offset
    if position.offset > bounds.end:
        return Mismatch(f"position {position.offset} is beyond the log's end {bounds.end}")
    if last is None:
        if position.offset < bounds.start:
            return Mismatch(f"position {position.offset} is below the log's start {bounds.start}")
        return Matches(None)
    if last < bounds.start:
        # held at the end, and a record came between our last fetch and this check: it is read next, nothing is missing
        if position.offset == bounds.end or (held and position.offset == bounds.start):
            return AtEndOfRetention()
        if position.offset < bounds.start:
            return Mismatch(f"position {position.offset} is below the log's start {bounds.start}")
        return Mismatch(f"record {last} was removed and the log goes on at {bounds.start}")
    if last_record is None:
        return Mismatch(f"record {last} is missing from the log")
    found = fingerprint(last_record)
    if found != position.fingerprint:
        return Mismatch(f"record {last} differs: consumed {position.fingerprint}, found {found}")
    return Matches(last_record.timestamp)
