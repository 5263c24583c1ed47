"""One record of a log, as consumers see it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol


class Record(Protocol):
    """The attributes of aiokafka's ConsumerRecord that we use; `timestamp` is LogAppendTime in ms."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class StoredRecord(NamedTuple):
    """A record that did not come from aiokafka: the in-memory log's, or one built in a test."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Position(NamedTuple):
    """Where a sink stands in one (topic, partition).

    `offset` is the next offset to apply; `fingerprint` names the last record consumed, poison included, as
    "<offset>:<16 hex digits>", or is "" when nothing has been consumed yet.
    """

    offset: int
    fingerprint: str

    @property
    def last_offset(self) -> int | None:
        """Offset of the last record consumed (offsets have holes, so it may be below `offset - 1`)."""
        return int(self.fingerprint.split(":", 1)[0]) if self.fingerprint else None


def fingerprint(record: Record) -> str:
    """Hash of a record's offset, key and value: differs when the log was truncated and grew again."""
    digest = blake2b(digest_size=8)
    digest.update(b"%d" % record.offset)
    for part in (record.key, record.value):
        digest.update(b"-" if part is None else b"+%d:" % len(part))
        digest.update(part or b"")
    return f"{record.offset}:{digest.hexdigest()}"
