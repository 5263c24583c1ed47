"""Operations: what the verdict on one record asks of a sink. Amounts in micro-units, times in ms since 1970 UTC."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from billing.stream.record import Record
from schemas.reasons import DeadLetterReason

SessionKind: TypeAlias = Literal["call", "message", "item"]
Direction: TypeAlias = Literal["inbound", "outbound", ""]

CALL_LEASE_MS = 180_000
MESSAGE_LEASE_MS = 4 * 3_600_000

LETTERS: dict[SessionKind, str] = {"call": "c", "message": "m", "item": "i"}
"""How a session key begins; then the account and the session id follow, parted by slashes (ids have none)."""


def session_key(kind: SessionKind, account: str, session: str) -> str:
    """Identity of a session within a partition, for example "c/acct-1/CA42"."""
    return f"{LETTERS[kind]}/{account}/{session}"


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Place or extend a hold (`started`, `progressed`, `accepted`). Replaces the session's hold only when
    `elapsed` is greater than what it has; renews the lease when not smaller; nothing once settled."""

    offset: int
    log_time_ms: int
    account: str
    kind: SessionKind
    session: str
    amount_micros: int
    elapsed: int
    lease_ms: int


class Charge(msgspec.Struct, frozen=True, gc=False):
    """Settle a session (`completed`): release its hold and charge in full. `amount_micros` 0 settles too."""

    offset: int
    log_time_ms: int
    account: str
    kind: SessionKind
    session: str
    amount_micros: int
    currency: str
    plan: str
    tariff_version: int
    price_time_ms: int
    tariff_kind: str  # call, sms, mms, item
    direction: Direction
    destination: str  # `to`, or the sku of an item
    origin: str  # `from`; "" for items
    quantity: int  # seconds, segments or units
    status: str
    matched: str  # the tariff's `match` that priced it, "" when nothing had to be priced
    event_id: str
    event_source: str


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that no money moves for, kept with its bytes and reason (post-flight) or counted (in-flight)."""

    record: Record
    reason: DeadLetterReason
    detail: str


class Stray(msgspec.Struct, frozen=True):
    """Usage of an account that the catalogue does not list. In-flight remembers only (account, offset);
    post-flight asks the ledger: still unknown there -> dead letter `unknown_account`, else CatchUp."""

    record: Record
    account: str
    offset: int


UsageOp: TypeAlias = Hold | Charge | DeadLetter | Stray
