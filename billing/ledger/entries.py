"""The chart of accounts and the posting sets of every kind of entry. Pure.

Sign convention: a positive posting credits the ledger account, a negative one debits it, and every posting set sums
to zero per currency (R6). A customer's balance is the sum of the postings on their liability account: positive is
money that we owe them in services. Revenue earned is positive; money that the gateway owes us is negative.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from billing.money import MAX_MICROS
from schemas.ledger import Origin


class LedgerAccount(StrEnum):
    """The chart. CUSTOMER is kept per account, REVENUE per partition (so that no row is hot)."""

    CUSTOMER = "customer"
    REVENUE = "revenue"
    GATEWAY_CLEARING = "gateway_clearing"
    CHARGEBACKS = "chargebacks"
    GOODWILL = "goodwill"
    SUSPENSE = "suspense"


CHART: Mapping[LedgerAccount, str] = {
    LedgerAccount.CUSTOMER: "Liability: prepaid, owed to the customer in services; below zero, owed by them",
    LedgerAccount.REVENUE: "Income: usage at its price, less what was refunded or re-rated",
    LedgerAccount.GATEWAY_CLEARING: "Asset: paid by card and not yet paid out to us",
    LedgerAccount.CHARGEBACKS: "Liability: taken back by customers' banks and not yet deducted from a payout",
    LedgerAccount.GOODWILL: "Expense: given away",
    LedgerAccount.SUSPENSE: "The other side is in books outside this system: cash, opening balances, corrections",
}
"""What stands on each account. docs/ledger.md has the same table, and a test compares them."""

COUNTERPART: Mapping[Origin, LedgerAccount] = {
    "credit": LedgerAccount.SUSPENSE,
    "recharge": LedgerAccount.GATEWAY_CLEARING,
    "adjustment": LedgerAccount.SUSPENSE,
    "refund": LedgerAccount.REVENUE,
    "rerate": LedgerAccount.REVENUE,
    "payment_refund": LedgerAccount.GATEWAY_CLEARING,
    "chargeback": LedgerAccount.CHARGEBACKS,
    "goodwill": LedgerAccount.GOODWILL,
    "migration": LedgerAccount.SUSPENSE,
}
"""What an entry of each origin is booked against. Opening credit is booked against suspense."""


class EntryKind(NamedTuple):
    """One kind of entry as docs/ledger.md shows it: what it is, what books it, and in which directions it may move the
    customer's balance: 1 credits it (debit the counterpart), -1 debits it (credit the counterpart). `second` is what it
    is in the second of them, where that is something else."""

    meaning: str
    booked_by: str
    directions: tuple[Literal[1, -1], ...]
    second: str | None = None


KINDS: Mapping[Origin | Literal["settlement", "opening"], EntryKind] = {
    "settlement": EntryKind("usage charged, one entry per batch", "`consume postflight`", (-1,)),
    "opening": EntryKind("what an account was opened with", "`account open`, `import`", (1,)),
    "credit": EntryKind("money received outside the gateway", "`account credit`", (1,)),
    "recharge": EntryKind("a card payment", "`consume recharge`", (1,)),
    "adjustment": EntryKind("a correction by hand", "`account adjust`", (1, -1)),
    "refund": EntryKind("a session refunded, whole or in part", "`usage refund`", (1,)),
    "rerate": EntryKind("sessions priced again", "`rerate --apply`", (1, -1)),
    "payment_refund": EntryKind(
        "a card payment given back",
        "`recharges taken-back --refund`, `consume webhooks`",
        (-1, 1),
        "giving it back failed",
    ),
    "chargeback": EntryKind(
        "a card payment taken back by the bank",
        "`recharges taken-back --chargeback`, `consume webhooks`",
        (-1, 1),
        "the dispute about it was won",
    ),
    "goodwill": EntryKind("a gift", "`account credit --goodwill`", (1,)),
    "migration": EntryKind("a balance taken over from another system", "no command yet", (1, -1)),
}
"""Every kind of entry that moves money."""


def counterpart(kind: Origin | Literal["settlement", "opening"]) -> LedgerAccount:
    """What an entry of this kind is booked against."""
    if kind == "settlement":
        return LedgerAccount.REVENUE
    return LedgerAccount.SUSPENSE if kind == "opening" else COUNTERPART[kind]


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of an entry. `account` only on CUSTOMER, `partition` only on REVENUE."""

    ledger_account: LedgerAccount
    account: str | None
    partition: int | None
    currency: str
    amount_micros: int


def entry_postings(
    account: str, home_partition: int, currency: str, amount_micros: int, origin: Origin
) -> tuple[Posting, Posting]:
    """The two lines of an entry that changes a customer's balance by `amount_micros` (not 0)."""
    check_amount(amount_micros)
    other_side = COUNTERPART[origin]
    partition = home_partition if other_side is LedgerAccount.REVENUE else None
    return (
        Posting(LedgerAccount.CUSTOMER, account, None, currency, amount_micros),
        Posting(other_side, None, partition, currency, -amount_micros),
    )


def settlement_postings(partition: int, charges: Iterable[tuple[str, str, int]]) -> tuple[Posting, ...]:
    """The lines of one settlement: (account, currency, amount in micro-units) of fresh sessions, aggregated per
    customer and into the partition's revenue. `sql/sink.sql` (settle) does the same set-based."""
    customers: defaultdict[tuple[str, str], int] = defaultdict(int)
    revenue: defaultdict[str, int] = defaultdict(int)
    for account, currency, amount_micros in charges:
        customers[account, currency] -= amount_micros
        revenue[currency] += amount_micros
    lines = [
        Posting(LedgerAccount.CUSTOMER, account, None, currency, amount)
        for (account, currency), amount in sorted(customers.items())
        if amount
    ]
    lines.extend(
        Posting(LedgerAccount.REVENUE, None, partition, currency, amount)
        for currency, amount in sorted(revenue.items())
        if amount
    )
    return tuple(lines)


def sums(postings: Iterable[Posting]) -> dict[str, int]:
    """Total per currency: all zero for a posting set."""
    totals: defaultdict[str, int] = defaultdict(int)
    for posting in postings:
        totals[posting.currency] += posting.amount_micros
    return dict(totals)


def check_amount(amount_micros: int) -> None:
    """Raises ValueError for what may not be posted: callers have refused it before (R10)."""
    if type(amount_micros) is not int or amount_micros == 0 or abs(amount_micros) > MAX_MICROS:
        raise ValueError(f"not an amount to post: {amount_micros!r}")
