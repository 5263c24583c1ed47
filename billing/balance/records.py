"""Packed records of the balance store, as the functions read and write them.

Accounts and holds are structs of little-endian doubles, which are exact for every integer within 2^53 and take the
functions half the time of msgpack; the rest is msgpack of integers and strings."""

from __future__ import annotations

import struct
from typing import Literal, TypeAlias

import msgspec

Status: TypeAlias = Literal["open", "suspended", "closed"]
STATUSES: tuple[Status, ...] = ("open", "suspended", "closed")
NEVER_CHARGED = -1
SAFE = 2**53  # every integer in the store is smaller in size

_encoder = msgspec.msgpack.Encoder()
_account = struct.Struct("<3s8dBB")
_hold = struct.Struct("<3d")
_NONE = -SAFE  # "no threshold": one beyond every threshold
_unknown = msgspec.msgpack.Decoder(tuple[str, int, int, int])


def pack(value: object) -> bytes:
    """msgpack of lists, strings, integers and booleans (no bytes: cmsgpack knows no `bin`)."""
    return _encoder.encode(value)


class AccountRecord(msgspec.Struct):
    """One account in flight; amounts in micro-units of `currency`. Available is credit - used - held."""

    currency: str
    credit: int
    used: int
    held: int
    credit_limit: int
    recharge_below: int | None
    excluded: int  # debits other than usage that nobody has acknowledged yet
    ledger_seq: int
    last_charge_offset: int  # of the last record that charged more than nothing; -1 before the first
    status: Status
    flags: int = 0  # conditions that were told as signals, of `billing.balance.conditions`; the functions work them out

    def pack(self) -> bytes:
        """The bytes that the functions read."""
        below = _NONE if self.recharge_below is None else self.recharge_below
        numbers = (self.credit, self.used, self.held, self.credit_limit, below)
        rest = (self.excluded, self.ledger_seq, self.last_charge_offset, STATUSES.index(self.status), self.flags)
        return _account.pack(self.currency.encode(), *numbers, *rest)

    @staticmethod
    def unpack(packed: bytes) -> AccountRecord:
        """The record in `packed`; raises struct.error or ValueError for anything else."""
        currency, *numbers, status, flags = _account.unpack(packed)
        whole = [int(number) for number in numbers]
        if whole != numbers:
            raise ValueError("an account's numbers are whole")
        credit, used, held, limit, below, excluded, seq, last = whole
        recharge_below = None if below == _NONE else below
        return AccountRecord(
            currency.decode(), credit, used, held, limit, recharge_below, excluded, seq, last, STATUSES[status], flags
        )

    @staticmethod
    def read(packed: bytes) -> AccountRecord | None:
        """The record in `packed`; None for bytes that another hand wrote, which may stop nobody who reads others."""
        try:
            return AccountRecord.unpack(packed)
        except (struct.error, ValueError, OverflowError, LookupError):
            return None


class HoldRecord(msgspec.Struct):
    """An open hold. `elapsed` is the largest elapsed count seen (seconds of a call); `lease_end_ms` is log time."""

    amount: int
    elapsed: int
    lease_end_ms: int

    def pack(self) -> bytes:
        """The bytes that the functions read."""
        return _hold.pack(self.amount, self.elapsed, self.lease_end_ms)

    @staticmethod
    def unpack(packed: bytes) -> HoldRecord:
        """The hold in `packed`; raises struct.error or ValueError for what is none to the functions, either."""
        numbers = _hold.unpack(packed)
        if not all(0 <= number < SAFE and number.is_integer() for number in numbers):
            raise ValueError("a hold's numbers are whole and not negative")
        return HoldRecord(*map(int, numbers))

    @staticmethod
    def read(packed: bytes) -> HoldRecord | None:
        """The hold in `packed`; None for bytes that another hand wrote."""
        try:
            return HoldRecord.unpack(packed)
        except (struct.error, ValueError):
            return None


class UnknownRecord(msgspec.Struct):
    """Why an account's balance is unknown: every usage record of it below `offset` was applied or passed, those from
    `first` on were passed, and its entries up to `seen` have been seen."""

    reason: str
    offset: int
    seen: int
    first: int

    @staticmethod
    def unpack(packed: bytes) -> UnknownRecord:
        """The record in `packed`; for bytes that another hand wrote, or caused, one that says so."""
        try:
            return UnknownRecord(*_unknown.decode(packed))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return UnknownRecord("unreadable", 0, 0, 0)
