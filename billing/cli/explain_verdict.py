"""Whether the two books of an account agree, in one sentence. Pure."""

from __future__ import annotations

from billing.balance.balances import Known, NoSuchAccount, Unknown
from billing.money import format_micros
from billing.reconcile.compare import Behind, Comparison, Different
from billing.reconcile.explain import LedgerAnswer, LedgerView, StoreView

_NAMES = {"store": "balance store", "ledger": "ledger"}


def verdict(ledger: LedgerAnswer, store: StoreView, comparison: Comparison | None) -> str:
    """Do they agree, and if not, why."""
    balance = store.balance
    if not isinstance(ledger, LedgerView):
        return "The ledger could not be read, so the books could not be compared."
    if isinstance(balance, Unknown):
        why = f"{balance.reason}: {balance.detail}" if balance.detail else balance.reason
        return f"Redis does not know the balance ({why}). Unknown is not zero; the ledger's is below."
    if isinstance(balance, NoSuchAccount):
        return "Redis does not show the account yet (are relay and inflight running?). The ledger's balance is below."
    if isinstance(comparison, Behind):
        return _behind(comparison, ledger, balance)
    if isinstance(comparison, Different):
        amount = format_micros(abs(comparison.amount_micros), ledger.account.currency)
        more = "more" if comparison.amount_micros > 0 else "less"
        return f"THE BOOKS DIFFER: by the same entries and usage Redis has {amount} {more} than the ledger."
    return _agreed(ledger, balance)


def _behind(behind: Behind, ledger: LedgerView, balance: Known) -> str:
    if behind.book == "store" and behind.what == "entries":
        entries = ledger.account.ledger_seq - balance.ledger_seq
        waiting = min(entries, ledger.waiting_entries)
        return (
            f"Redis is behind by {count(entries, 'entry', 'entries')} of the ledger ({waiting} not yet published by the"
            " relay); it follows by itself."
        )
    if behind.book == "ledger" and behind.what == "usage":
        records = count(balance.usage_position - ledger.usage_position, "usage record", "usage records")
        return f"The ledger is behind by {records} of the partition; it follows by itself (is postflight running?)."
    return f"The {_NAMES[behind.book]} is behind with {behind.what}; if that stays so, run `billing reconcile`."


def _agreed(ledger: LedgerView, balance: Known) -> str:
    ahead = ledger.usage_position - balance.usage_position
    if ahead == 0:
        return "The two books agree."
    records = count(abs(ahead), "usage record", "usage records")
    if ahead < 0:
        return f"The two books agree; the ledger has yet to read {records} of the partition."
    settled_micros = ledger.account.used_micros - balance.used_micros
    amount = f"{format_micros(settled_micros, balance.currency)} {balance.currency}"
    of_it = f", {amount} of it this account's" if settled_micros else ""
    return f"The two books agree as far as Redis has read; it is behind by {records} of the partition{of_it}."


def count(number: int, one: str, many: str) -> str:
    """ "1 entry", "2,000 entries"."""
    return f"{number:,} {one if number == 1 else many}"
