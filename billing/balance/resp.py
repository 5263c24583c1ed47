"""The part of Redis's protocol (RESP 2 and 3) that functions' answers are made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

_ARRAY, _BULK, _PUSH = b"*$>"


class Failed(NamedTuple):
    """An error reply."""

    message: str


class Incomplete(Exception):
    """The reply goes on."""


class Unexpected(Exception):
    """Not a reply of a function."""


def pack(arguments: Iterable[str | bytes | int]) -> bytes:
    """A command as it is sent."""
    parts: list[bytes] = [b""]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    parts[0] = b"*%d\r\n" % (len(parts) - 1)
    return b"".join(parts)


def parse(data: bytes, at: int) -> tuple[Any, int]:
    """The reply that begins at `at`, and where the next one does: bytes, int, None, a list of them, or Failed. Raises
    Incomplete, Unexpected. A push is skipped."""
    while True:
        value, at, kind = _one(data, at)
        if kind != _PUSH:
            return value, at


def _one(data: bytes, at: int) -> tuple[Any, int, int]:
    """What begins at `at`, where the next begins, and its kind."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Incomplete
    kind, after = data[at], end + 2
    if kind == _BULK:
        stop = after + int(data[at + 1 : end])
        if stop < after:
            return None, after, kind
        if len(data) < stop + 2:
            raise Incomplete
        return data[after:stop], stop + 2, kind
    if kind not in {_ARRAY, _PUSH}:
        return _line(kind, data[at + 1 : end]), after, kind
    items = []
    for _ in range(int(data[at + 1 : end])):
        item, after, _ = _one(data, after)
        items.append(item)
    return items, after, kind


def _line(kind: int, text: bytes) -> bytes | int | Failed | None:
    match kind:
        case 58:  # :
            return int(text)
        case 43:  # +
            return text
        case 45:  # -
            return Failed(text.decode(errors="replace"))
        case 95:  # _
            return None
    raise Unexpected(chr(kind))
