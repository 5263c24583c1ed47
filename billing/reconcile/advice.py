"""What an operator can do about an open finding, in one or two sentences. Pure. docs/recovery.md says more."""

from __future__ import annotations

from collections.abc import Mapping

from billing.ledger.findings import Finding
from billing.money import MAX_MICROS, format_micros

_BY_KIND: Mapping[str, str] = {
    "entries_lost": "Nothing: Redis works the account out anew from the ledger, and this ends by itself.",
    "record_unreadable": (
        "The reconciler puts an unknown balance in its place, Redis works it out anew, and this ends by itself (a hold"
        " is forgotten). If it does not within a minute: `billing rebuild`. Find out who writes to Redis by hand."
    ),
    "balance_overflow": (
        "Redis cannot hold a balance, or a sum of holds, beyond {most}. Correct what was wrong (`billing usage refund`,"
        " `billing account adjust {account} AMOUNT`, or {resolve} --correct-ledger AMOUNT`) until the ledger's balance"
        " is within that; Redis follows by itself, and this ends. Holds end with their calls."
    ),
    "ledger_behind": (
        "Was PostgreSQL restored? `billing ledger restored`. Else Redis was tampered with: `billing rebuild`."
    ),
    "ledger_restored": "`billing ledger restored`; a false alarm: `billing halts lift`.",
    "entry_forgotten": "{resolve} --book` books it again, at most once; without an amount: `billing account set`.",
    "records_lost": "Nobody settled these records. Book what they cost where it is known, then {resolve}`.",
    "differing_completion": "The first completion counts. Ask the producer why it sent two; then {resolve}`.",
    "payment": "Look at the payment. {resolve} --book` credits one that the ledger forgot, {resolve}` only ends this.",
    "wrong_ledger": "The ledger's balance is not the sum of its entries: {resolve} --recompute-ledger`.",
    "known_cause": "Nothing: Redis is worked out anew, and this ends by itself once the books agree.",
    "wrong_view": (
        "Find out why; Redis was worked out anew. {resolve}` ends this once the books agree. If Redis is wrong again:"
        " --repair-view; if the ledger's entries are wrong: --correct-ledger AMOUNT; if it may stand: --anyway."
    ),
}
_OTHERWISE = "Look at it; {resolve}` ends it."


def advice(found: Finding) -> str | None:
    """None where it was resolved."""
    if found.resolution is not None:
        return None
    return _BY_KIND.get(_case(found), _OTHERWISE).format(
        resolve=f"`billing findings resolve {found.id}",
        account=found.account,
        most=f"{format_micros(MAX_MICROS, found.currency)} {found.currency or ''}".rstrip(),
    )


def _case(found: Finding) -> str:
    if found.kind.startswith("payment_"):
        return "payment"
    if found.kind != "books_differ":
        return found.kind
    if found.detail.get("wrong") == "ledger":
        return "wrong_ledger"
    return "known_cause" if found.detail.get("cause") else "wrong_view"
