"""What the two books say of one account, compared. Pure.

The books are comparable where both have seen the same: the same `ledger_seq` (credits and corrections) and the same
last charging offset (usage). There, credit - used must equal the ledger's balance; holds are left out, because only
the balance store has them. Anywhere else one side has yet to catch up, which says nothing about money (R1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from billing.money import MAX_MICROS, format_micros

Book: TypeAlias = Literal["ledger", "store"]


@dataclass(frozen=True, slots=True)
class Side:
    """One book's view of an account, read in one step, in micro-units of `currency`. `last_charge_offset` is the offset
    of the last usage record that charged the account, -1 before the first."""

    balance_micros: int
    ledger_seq: int
    last_charge_offset: int
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Equal:
    """Same balance at the same place."""


@dataclass(frozen=True, slots=True)
class Behind:
    """`book` has not seen all that the other has of `what`: look again later."""

    book: Book
    what: Literal["entries", "usage"]


@dataclass(frozen=True, slots=True)
class Missing:
    """`book` does not have the account, the other does: not a balance of zero (R1)."""

    book: Book


@dataclass(frozen=True, slots=True)
class Different:
    """The books disagree at the same place; `amount_micros` is the store's balance minus the ledger's."""

    amount_micros: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """The store does not know the balance, and says why."""

    reason: str


Comparison: TypeAlias = Equal | Behind | Missing | Different | Unknown


def compare(ledger: Side | None, store: Side | Unknown | None, *, same_usage: bool = False) -> Comparison:
    """Compare one account; None means that the book does not have it. Entries are looked at before usage.

    `same_usage`: both sides are as of the same usage position, so neither can be behind with usage.
    """
    if isinstance(store, Unknown):
        return store
    if ledger is None:
        return Missing("ledger") if store is not None else Equal()
    if store is None:
        return Missing("store")
    if ledger.ledger_seq != store.ledger_seq:
        return Behind("ledger" if ledger.ledger_seq < store.ledger_seq else "store", "entries")
    if not same_usage and ledger.last_charge_offset != store.last_charge_offset:
        return Behind("ledger" if ledger.last_charge_offset < store.last_charge_offset else "store", "usage")
    amount_micros = store.balance_micros - ledger.balance_micros
    return Different(amount_micros) if amount_micros else Equal()


def stuck(comparison: Comparison, ledger: Side | None) -> bool:
    """Whether the account stays unknown until somebody acts: its record in the store is unreadable, or its balance is
    beyond what the store can hold."""
    match comparison:
        case Unknown("unreadable"):
            return True
        case Unknown("overflow"):
            return ledger is not None and abs(ledger.balance_micros) > MAX_MICROS
        case _:
            return False


def describe(comparison: Comparison, currency: str = "") -> str:
    """One short phrase for people; amounts are of `currency`."""
    match comparison:
        case Equal():
            return "equal"
        case Behind(book, what):
            return f"{book} is behind with {what}"
        case Missing(book):
            return f"missing in the {book}"
        case Different(amount_micros):
            amount = format_micros(amount_micros, currency or None)
            return f"store differs from the ledger by {'+' if amount_micros > 0 else ''}{amount} {currency}".rstrip()
        case Unknown(reason):
            return f"unknown ({reason}{_why(reason, currency)})"


def _why(reason: str, currency: str) -> str:
    if reason == "overflow":
        most = format_micros(MAX_MICROS, currency or None)
        return f": its balance, or what is held, is beyond {most} {currency}".rstrip()
    return ": its record, or a hold of it, in Redis was changed by another hand" if reason == "unreadable" else ""
