"""What is true of an account's balance and has to be told, as the function library works it out. Pure."""

from __future__ import annotations

from billing.balance.records import SAFE, AccountRecord

LOW = 1
"""Credit less usage, excluded debits added back (R5) and holds left out, is below the recharge threshold."""
EXHAUSTED = 2
"""Credit and credit limit are used up, what is held included."""
SUSPENDED = 4
OWED_RESTORED, OWED_RESUMED = 8, 16
"""An end that could not be told while too many signals were unpublished."""


def conditions(record: AccountRecord) -> int:
    """The flags that hold."""
    flags = 0
    if record.recharge_below is not None and _level(record) < record.recharge_below:
        flags |= LOW
    if record.credit + record.credit_limit - record.used - record.held <= 0:
        flags |= EXHAUSTED
    if record.status == "suspended":
        flags |= SUSPENDED
    return flags


def level_micros(record: AccountRecord) -> int:
    """What is compared with the threshold, within the bounds of an amount."""
    return _bounded(_level(record))


def available_micros(record: AccountRecord) -> int:
    """Credit less what was used and what is held, within the bounds of an amount."""
    return _bounded(record.credit - record.used - record.held)


def _level(record: AccountRecord) -> int:
    return record.credit - record.used + record.excluded


def _bounded(amount: int) -> int:
    return max(1 - SAFE, min(SAFE - 1, amount))
