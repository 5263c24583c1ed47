"""A dead letter as it is shown: the record's bytes, its position, and why (a closed list)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from schemas.common import Offset, Partition
from schemas.reasons import DeadLetterReason

DeadLetterState: TypeAlias = Literal["open", "replaying", "replayed", "resolved", "refused_again", "discarded"]
"""What became of a letter. replaying: asked for, but not known to be published; replayed: published, not yet read by
post-flight; resolved: taken in; refused_again: a dead letter once more, which goes on in its place."""

UNRESOLVED: tuple[DeadLetterState, ...] = ("open", "replaying", "replayed")


class DeadLetterHeader(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One Kafka header; names may repeat, a value may be null."""

    name: str
    value_base64: str | None


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. (topic, partition, offset) identifies it; `timestamp_ms` is the log's append time;
    `account` the one that it is about, as far as its bytes say."""

    topic: str
    partition: Partition
    offset: Offset
    timestamp_ms: int
    reason: DeadLetterReason
    detail: str
    key_base64: str | None
    value_base64: str | None
    headers: list[DeadLetterHeader]
    account: str | None
    state: DeadLetterState


def base64_text(part: bytes | None) -> str | None:
    """Bytes as standard Base64; null stays null."""
    return None if part is None else b64encode(part).decode("ascii")


def header_rows(headers: Iterable[tuple[str, bytes | None]]) -> list[DeadLetterHeader]:
    """A record's headers, in their order."""
    return [DeadLetterHeader(name=name, value_base64=base64_text(value)) for name, value in headers]
