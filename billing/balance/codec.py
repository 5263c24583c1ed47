"""Batches as the functions take them: one msgpack blob of integers, booleans and strings (cmsgpack has no `bin`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from billing.balance.entries import EntryOp, Malformed
from billing.balance.keys import session_key
from billing.balance.records import SAFE, STATUSES, pack
from billing.usage.ops import Charge, DeadLetter, Hold, Stray, UsageOp
from schemas.ledger import AccountChanged, AccountOpened, DebitsAcknowledged, EntryPosted, LedgerEntry, ViewCorrected

BalanceOp: TypeAlias = UsageOp | EntryOp
"""What the in-flight consumer asks of the balance store."""

HOLD, CHARGE, PASS = 1, 2, 3
OPENED, CHANGED, POSTED, ACKNOWLEDGED = 1, 2, 3, 4
CORRECTED = 5


class BadOperation(ValueError):
    """An operation is outside the contract: a bug upstream. Nothing of its batch may be applied (S13)."""


def pack_usage(ops: Iterable[BalanceOp]) -> bytes:
    """Holds, charges and strays as {accounts, currencies, sessions, flat operations}; dead letters move no money and
    are left out. Raises BadOperation."""
    accounts: dict[str, int] = {}
    sessions: dict[str, int] = {}
    currencies: list[str] = []
    flat: list[int] = []
    for op in ops:
        if isinstance(op, DeadLetter):
            continue
        if not isinstance(op, Charge | Hold | Stray):
            raise BadOperation(f"{type(op).__name__} is not an operation of usage")
        index = accounts.setdefault(op.account, len(accounts) + 1)
        if index > len(currencies):
            currencies.append("")
        if isinstance(op, Stray):
            flat += (PASS, _whole(op.offset), index, 0, 0, 0, 0)
            continue
        session = sessions.setdefault(session_key(op.kind, op.account, op.session), len(sessions) + 1)
        amount = _whole(op.amount_micros)
        if isinstance(op, Charge):
            if currencies[index - 1] not in ("", op.currency):
                raise BadOperation("an account is charged in two currencies")
            currencies[index - 1] = op.currency
            flat += (CHARGE, _whole(op.offset), index, session, amount, 0, 0)
        else:
            lease_end_ms = _whole(op.log_time_ms) + _whole(op.lease_ms)
            flat += (HOLD, _whole(op.offset), index, session, amount, _whole(op.elapsed), lease_end_ms)
    return pack((list(accounts), currencies, list(sessions), flat))


def pack_entries(ops: Iterable[BalanceOp]) -> bytes:
    """The ledger's entries as {accounts, timelines, operations}. Raises BadOperation."""
    accounts: dict[str, int] = {}
    timelines: dict[str, None] = {}
    packed: list[tuple[object, ...]] = []
    for op in ops:
        if isinstance(op, DeadLetter | Hold | Charge | Stray | Malformed):
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
