"""Idempotency keys as Stripe documents them for API v1.

The first request with a key is carried out and its status and body saved, 4xx and 5xx included, in the transaction
of its effects. Later ones get the same again, marked `Idempotent-Replayed: true`. Another endpoint or other
parameters: 400 `idempotency_error`. A request that fails validation, or that comes while another with its key is
being carried out (409), saves nothing. A key is forgotten after 24 hours.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

from billing.lab.sandbox.errors import Answer, error

KEPT_SECONDS = 24 * 3600
MAX_KEY_LENGTH = 255

IDEMPOTENCY_ERROR = "idempotency_error"


@dataclass(frozen=True, slots=True)
class Replay:
    """A saved answer, and the id of the request that it was first given to."""

    answer: Answer
    original_request: str


@dataclass(frozen=True, slots=True)
class Use:
    """What a key was sent with. `parameters` is a hash."""

    key: str
    endpoint: str
    parameters: bytes


def hash_parameters(fields: list[tuple[str, str]]) -> bytes:
    """What identifies parameters, whatever their order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(fields):
        for part in (name.encode(), value.encode()):
            digest.update(b"%d:" % len(part) + part)
    return digest.digest()


def find(db: sqlite3.Connection, use: Use, now: int) -> Replay | Answer | None:
    """The saved answer, or the error of a key used for something else, or None for a key not seen (any more)."""
    row = db.execute(
        "SELECT * FROM idempotency_keys WHERE key = ? AND created > ?", (use.key, now - KEPT_SECONDS)
    ).fetchone()
    if row is None:
        return None
    other = (
        "endpoint" if row["endpoint"] != use.endpoint else "parameters" if row["parameters"] != use.parameters else None
    )
    if other is None:
        return Replay(Answer(row["status"], row["body"]), row["request"])
    other = "parameters" if row["endpoint"] == use.endpoint else "endpoint"
    return error(
        400,
        IDEMPOTENCY_ERROR,
        f"Keys for idempotent requests can only be used with the same {other} they were first used with. "
        f"Try using a key other than '{use.key}' if you meant to execute a different request.",
    )


def in_use(key: str) -> Answer:
    """Another request with this key is being carried out."""
    return error(
        409,
        IDEMPOTENCY_ERROR,
        f"There is currently another in-progress request using this Idempotent Key: {key}. Please try again later.",
        code="idempotency_key_in_use",
    )


def save(db: sqlite3.Connection, use: Use, request: str, answer: Answer, now: int) -> None:
    """Remember what the first request with this key came to; replaces one that has expired."""
    db.execute(
        "INSERT OR REPLACE INTO idempotency_keys (key, created, endpoint, parameters, request, status, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (use.key, now, use.endpoint, use.parameters, request, answer.status, answer.body),
    )


def forget(db: sqlite3.Connection) -> int:
    """Forget every key now, as Stripe may after 24 hours; returns how many."""
    return db.execute("DELETE FROM idempotency_keys").rowcount
