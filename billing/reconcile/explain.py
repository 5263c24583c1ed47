"""Why a balance is what it is: both books of one account side by side, and whether they agree.

Redis is read first, then the ledger as it was at Redis's usage position, so an account in constant use is compared too.
A store that is away, or does not know the balance, is said to be so; it is never taken for zero (R1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from billing.balance.balances import BalanceAnswer, Known, NoSuchAccount, OpenHold, Unknown
from billing.balance.reader import BalanceReader
from billing.ledger.about import about
from billing.ledger.accounts import Account
from billing.ledger.database import Connection, Pool, lease
from billing.ledger.queries import query
from billing.ledger.terms import is_id
from billing.reconcile.compare import Comparison, Side, compare
from billing.reconcile.compare import Unknown as NotKnown

NEVER_CHARGED = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the ledger on the account; `amount_micros` 0 where it moved no money."""

    entry: int
    ledger_seq: int
    booked_at: datetime
    kind: str
    amount_micros: int
    about: str
    corrects: int | None
    author: str
    reason: str


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """All settled sessions of a kind (call, sms, mms, item; archived: of any, and without a quantity)."""

    kind: str
    sessions: int
    quantity: int
    amount_micros: int
    last_offset: int | None


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The ledger's side, of one snapshot. `earlier_entries` are not in `entries`; they came to `earlier_micros`.
    `at_store` is the account as of the balance store's usage position, None where the ledger has not got there."""

    account: Account
    entries: tuple[Entry, ...]
    earlier_entries: int
    earlier_micros: int
    usage: tuple[UsageTotal, ...]
    usage_position: int
    halted: str | None
    waiting_entries: int
    frozen_reason: str | None
    at_store: Side | None

    @property
    def side(self) -> Side:
        return _side(self.account.balance_micros, self.account.ledger_seq, self.account.last_charged_offset)


@dataclass(frozen=True, slots=True)
class StoreView:
    """The balance store's side; `holds` is Unknown where they could not be read."""

    balance: BalanceAnswer
    holds: tuple[OpenHold, ...] | Unknown = field(default=())


@dataclass(frozen=True, slots=True)
class Away:
    """The ledger does not answer."""

    why: str


LedgerAnswer: TypeAlias = LedgerView | Away | None


async def look_at_store(reader: BalanceReader, account: str) -> StoreView:
    """Balance and open holds; they are two readings, a moment apart."""
    balance = await reader.read_balance(account)
    if not isinstance(balance, Known):
        return StoreView(balance)
    holds = await reader.read_holds(account)
    return StoreView(balance, holds if isinstance(holds, Unknown) else tuple(holds))


async def look_at_ledger(pool: Pool, account: str, store: StoreView, limit: int) -> LedgerView | None:
    """The ledger's side, its newest `limit` entries; None where it has no such account. Raises what asyncpg raises."""
    async with (
        lease(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        row = await connection.fetchrow(query("accounts.show"), account) if is_id(account) else None
        if row is None:
            return None
        found = Account(**row)
        around = await connection.fetchrow(query("explain.surroundings"), account, found.home_partition)
        assert around is not None  # made by the migration, never deleted
        entries = [_entry(each) for each in await connection.fetch(query("explain.entries"), account, limit)]
        usage = await connection.fetch(query("explain.usage"), account)
        at_store = await _at_store(connection, found, store.balance, around["usage_position"])
    return LedgerView(
        account=found,
        entries=tuple(entries),
        earlier_entries=found.ledger_seq - len(entries),
        earlier_micros=found.credit_micros - sum(entry.amount_micros for entry in entries),
        usage=tuple(UsageTotal(**total) for total in usage),
        usage_position=around["usage_position"],
        halted=around["halted"],
        waiting_entries=around["waiting_entries"],
        frozen_reason=around["frozen_reason"],
        at_store=at_store,
    )


def judge(ledger: LedgerView, store: StoreView) -> Comparison:
    """What the two say of the balance, compared where both have read the same."""
    balance = store.balance
    if isinstance(balance, Unknown):
        return NotKnown(balance.reason)
    if isinstance(balance, NoSuchAccount):
        return compare(ledger.side, None)
    seen = Side(balance.credit_micros - balance.used_micros, balance.ledger_seq, balance.last_charge_offset)
    if ledger.at_store is not None:
        return compare(ledger.at_store, seen, same_usage=True)
    return compare(ledger.side, seen)


async def _at_store(connection: Connection, account: Account, balance: BalanceAnswer, position: int) -> Side | None:
    if not isinstance(balance, Known) or position < balance.usage_position:
        return None
    row = await connection.fetchrow(
        query("reconcile.balances_below"), account.home_partition, [account.id], balance.usage_position
    )
    return None if row is None else _side(row["balance_micros"], row["ledger_seq"], row["last_charged_offset"])


def _side(balance_micros: int, ledger_seq: int, last_offset: int | None) -> Side:
    return Side(balance_micros, ledger_seq, NEVER_CHARGED if last_offset is None else last_offset)


_KINDS = {"opened": "opened", "changed": "terms changed", "acknowledged": "debits acknowledged"}


def _entry(row: Any) -> Entry:
    return Entry(
        entry=row["entry"],
        ledger_seq=row["ledger_seq"],
        booked_at=row["booked_at"],
        kind=_KINDS.get(row["kind"]) or row["origin"].replace("_", " "),
        amount_micros=row["amount_micros"],
        about=about(row["origin"], row["detail"]),
        corrects=row["corrects"],
        author=row["author"],
        reason=row["reason"],
    )
