"""A dead letter as it is shown: the record's bytes, its position, and why (a closed list)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

import msgspec

from schemas.common import Offset, Partition
from schemas.reasons import DeadLetterReason


class DeadLetterHeader(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One Kafka header; names may repeat, a value may be null."""

    name: str
    value_base64: str | None


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. (topic, partition, offset) identifies it; `timestamp_ms` is the log's append time."""

    topic: str
    partition: Partition
    offset: Offset
    timestamp_ms: int
    reason: DeadLetterReason
    detail: str
    key_base64: str | None
    value_base64: str | None
    headers: list[DeadLetterHeader]


def base64_text(part: bytes | None) -> str | None:
    """Bytes as standard Base64; null stays null."""
    return None if part is None else b64encode(part).decode("ascii")


def header_rows(headers: Iterable[tuple[str, bytes | None]]) -> list[DeadLetterHeader]:
    """A record's headers, in their order."""
    return [DeadLetterHeader(name=name, value_base64=base64_text(value)) for name, value in headers]
