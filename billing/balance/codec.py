"""Batches as the functions take them: msgpack of integers, booleans and strings (cmsgpack has no `bin`), and usage's
numbers as doubles, which are exact within 2^53."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TypeAlias

from billing.balance.entries import EntryOp, Malformed
from billing.balance.records import SAFE, STATUSES, pack
from billing.usage.live import LiveOp, live
from billing.usage.ops import Charge, DeadLetter, Hold, Stray, UsageOp
from schemas.ledger import AccountChanged, AccountOpened, DebitsAcknowledged, EntryPosted, LedgerEntry, ViewCorrected

BalanceOp: TypeAlias = LiveOp | UsageOp | EntryOp
"""What the in-flight consumer asks of the balance store."""

PASS = 3  # beside HOLD and CHARGE of billing.usage.live: usage of an account that the catalogue does not list
OPENED, CHANGED, POSTED, ACKNOWLEDGED = 1, 2, 3, 4
CORRECTED = 5


class BadOperation(ValueError):
    """An operation is outside the contract: a bug upstream. Nothing of its batch may be applied (S13)."""


def pack_usage(ops: Iterable[BalanceOp]) -> tuple[bytes, bytes]:
    """Holds, charges and strays as {accounts, currencies, sessions} and seven doubles for each operation; dead letters
    move no money and are left out. Raises BadOperation."""
    accounts: dict[str, int] = {}
    currencies: list[str] = []
    sessions: dict[str, int] = {}
    flat: list[int] = []
    for op in ops:
        if type(op) is not tuple:
            if isinstance(op, DeadLetter):
                continue
            if isinstance(op, Stray):
                op = (PASS, op.offset, op.account, "", 0, "", 0, 0)  # noqa: PLW2901 - the same, as the others are
            elif isinstance(op, Charge | Hold):
                op = live(op)  # noqa: PLW2901
            else:
                raise BadOperation(f"{type(op).__name__} is not an operation of usage")
        code, offset, account, session, amount, currency, elapsed, lease_end_ms = op
        index = accounts.setdefault(account, len(accounts) + 1)
        if index > len(currencies):
            currencies.append(currency)
        elif currency and currencies[index - 1] != currency:
            if currencies[index - 1]:
                raise BadOperation("an account is charged in two currencies")
            currencies[index - 1] = currency
        number = sessions.setdefault(session, len(sessions) + 1) if session else 0
        flat += (code, offset, index, number, amount, elapsed, lease_end_ms)
    if flat and (set(map(type, flat)) != {int} or min(flat) < 0 or max(flat) >= SAFE):
        raise BadOperation("not all of the batch's numbers are whole numbers from 0 to 2^53")
    return pack((list(accounts), currencies, list(sessions))), struct.pack(f"<{len(flat)}d", *flat)


def pack_entries(ops: Iterable[BalanceOp]) -> bytes:
    """The ledger's entries as {accounts, timelines, operations}. Raises BadOperation."""
    accounts: dict[str, int] = {}
    timelines: dict[str, None] = {}
    packed: list[tuple[object, ...]] = []
    for op in ops:
        if isinstance(op, tuple | DeadLetter | Hold | Charge | Stray | Malformed):
            raise BadOperation(f"{type(op).__name__} is not an entry")
        index = accounts.setdefault(op.account, len(accounts) + 1)
        timelines[op.timeline] = None
        packed.append(_entry(op, index))
    return pack((list(accounts), list(timelines), packed))


def _entry(op: LedgerEntry, index: int) -> tuple[object, ...]:
    seq = _whole(op.ledger_seq)
    match op:
        case AccountOpened():
            start = (OPENED, index, seq, op.currency, _whole(op.usage_position), _signed(op.credit_micros))
            return start + _terms(op)
        case AccountChanged():
            return (CHANGED, index, seq, *_terms(op))
        case EntryPosted():
            return (POSTED, index, seq, _signed(op.amount_micros), op.currency)
        case DebitsAcknowledged():
            return (ACKNOWLEDGED, index, seq)
        case ViewCorrected():
            return (CORRECTED, index, seq)


def _terms(op: AccountOpened | AccountChanged) -> tuple[object, ...]:
    below = False if op.recharge_below_micros is None else _signed(op.recharge_below_micros)
    return (_whole(op.credit_limit_micros), below, STATUSES.index(op.status))


def _signed(value: int) -> int:
    if type(value) is not int or not -SAFE < value < SAFE:
        raise BadOperation(f"{value!r} is not a whole number within 2^53")
    return value


def _whole(value: int) -> int:
    if type(value) is not int or not 0 <= value < SAFE:
        raise BadOperation(f"{value!r} is not a whole number from 0 to 2^53")
    return value
