"""What the two books say of one account, compared. Pure.

The books are comparable where both have seen the same: the same `ledger_seq` (credits and corrections) and the same
last charging offset (usage). There, credit - used must equal the ledger's balance; holds are left out, because only
the balance store has them. Anywhere else one side has yet to catch up, which says nothing about money (R1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Book: TypeAlias = Literal["ledger", "store"]


@dataclass(frozen=True, slots=True)
class Side:
    """One book's view of an account, read in one step. `last_charge_offset` is the offset of the last usage record
    that charged the account, -1 before the first."""

    balance_micros: int
    ledger_seq: int
    last_charge_offset: int


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


def describe(comparison: Comparison) -> str:
    """One short phrase for people."""
    match comparison:
        case Equal():
            return "equal"
        case Behind(book, what):
            return f"{book} is behind with {what}"
        case Missing(book):
            return f"missing in the {book}"
        case Different(amount_micros):
            return f"store differs from the ledger by {amount_micros:+d} micro-units"
        case Unknown(reason):
            return f"unknown ({reason})"
