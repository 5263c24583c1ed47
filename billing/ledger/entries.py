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

from billing.money import MAX_MICROS
from schemas.ledger import Origin


class LedgerAccount(StrEnum):
    """The chart. CUSTOMER is kept per account, REVENUE per partition (so that no row is hot)."""

    CUSTOMER = "customer"
    REVENUE = "revenue"
    GATEWAY_CLEARING = "gateway_clearing"  # charged by card, not yet paid out to us
    CHARGEBACKS = "chargebacks"  # taken back by the customer's bank
    GOODWILL = "goodwill"  # given away
    SUSPENSE = "suspense"  # the other side is in books outside this system: cash, opening balances, corrections


COUNTERPART: Mapping[Origin, LedgerAccount] = {
    "credit": LedgerAccount.SUSPENSE,
    "recharge": LedgerAccount.GATEWAY_CLEARING,
    "adjustment": LedgerAccount.SUSPENSE,
    "refund": LedgerAccount.GATEWAY_CLEARING,
    "rerate": LedgerAccount.REVENUE,
    "chargeback": LedgerAccount.CHARGEBACKS,
    "goodwill": LedgerAccount.GOODWILL,
    "migration": LedgerAccount.SUSPENSE,
}
"""What an entry of each origin is booked against. Opening credit is booked against suspense."""


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
    counterpart = COUNTERPART[origin]
    partition = home_partition if counterpart is LedgerAccount.REVENUE else None
    return (
        Posting(LedgerAccount.CUSTOMER, account, None, currency, amount_micros),
        Posting(counterpart, None, partition, currency, -amount_micros),
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
