"""Faults on demand: a queue; each confirmation that could charge takes the first one."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

Kind: TypeAlias = Literal["decline", "delay", "error_after_confirm", "cut_after_confirm"]


class FaultOrder(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of POST /_sandbox/faults. `seconds` is for delay."""

    fault: Kind
    count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    seconds: Annotated[float, Meta(ge=0, le=600)] = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """decline: the card is refused · delay: the confirmation waits `seconds` first and is carried out even if the
    client has gone · error_after_confirm: carried out, answered 500, the 500 saved under the key ·
    cut_after_confirm: carried out, its result saved under the key, the connection closed without an answer."""

    kind: Kind
    seconds: float


def add(db: sqlite3.Connection, order: FaultOrder) -> None:
    """Queue `count` times."""
    db.execute(
        "INSERT INTO faults (fault, remaining, seconds) VALUES (?, ?, ?)", (order.fault, order.count, order.seconds)
    )


def clear(db: sqlite3.Connection) -> None:
    """Drop the queue."""
    db.execute("DELETE FROM faults")


def pending(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """What is queued, in order."""
    rows = db.execute("SELECT fault, remaining AS count, seconds FROM faults ORDER BY seq")
    return [dict(row) for row in rows]


def take(db: sqlite3.Connection) -> Fault | None:
    """Use up one of the first in the queue."""
    row = db.execute("SELECT seq, fault, remaining, seconds FROM faults ORDER BY seq LIMIT 1").fetchone()
    if row is None:
        return None
    if row["remaining"] > 1:
        db.execute("UPDATE faults SET remaining = remaining - 1 WHERE seq = ?", (row["seq"],))
    else:
        db.execute("DELETE FROM faults WHERE seq = ?", (row["seq"],))
    return Fault(row["fault"], row["seconds"])
