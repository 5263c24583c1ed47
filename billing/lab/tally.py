"""What a run comes to, put into the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from billing.lab.checks import Check
from billing.lab.expected import Expected
from billing.lab.keeper import Restart
from billing.lab.pipeline import Comparison
from billing.lab.recharge_checks import Evidence, seconds_to_confirmed
from billing.lab.report import Recharges, Report


def count_events(
    report: Report, found: Comparison, expected: Expected, ends: Mapping[int, int], applied: Mapping[int, int]
) -> None:
    """What went through, counted in the books. Whatever is in the log beyond what we published are ticks."""
    ticks = sum(ends.values()) - report.events["published"]
    report.events |= {
        "applied": sum(min(end, applied.get(partition, 0)) for partition, end in ends.items()) - ticks,
        "settled": len(found.ledger.settled),
        "dead_lettered": len(found.ledger.dead_letters),
        "duplicates": expected.completions - len(found.ledger.settled),
        "differing": len(found.ledger.findings),
        "open_holds": len(found.store.holds),
        "ticks": ticks,
    }
    report.dead_letters = dict(Counter(row.reason for row in found.ledger.dead_letters))
    live = {account: record.credit - record.used for account, record in found.store.accounts.items()}
    equal = [account for account, balance in found.ledger.balances.items() if live.get(account) == balance]
    report.accounts = {"opened": len(found.ledger.balances), "equal_in_both_books": len(equal)}


def recharges_of(evidence: Evidence) -> Recharges:
    """The report's part about recharges."""
    books, seconds = evidence.books, seconds_to_confirmed(evidence)
    found = Recharges(
        succeeded=sum(payment.succeeded for payment in evidence.payments),
        declined=sum(intent.declined for intent in books.intents) + len(books.refused_cards),
        refused=dict(books.refusals),
        suspended=len(books.suspended),
    )
    if seconds:
        found.seconds = {"median": median(seconds), "p99": quantile(seconds, 0.99)}
    return found


def quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    rank = -(-share * len(ascending) // 1)
    return ascending[max(0, int(rank) - 1)]


def drained(consumers: Mapping[str, bool]) -> Check:
    """All ended by themselves when asked to."""
    bad = [name for name, ended in consumers.items() if not ended]
    detail = f"{', '.join(bad)} had to be killed" if bad else f"{', '.join(consumers)} ended when asked to"
    return Check("consumers_drain_on_sigterm", not bad, detail)


def restarted(restarts: Sequence[Restart]) -> Check:
    """Who ended had been killed."""
    bad = [restart for restart in restarts if not restart.killed]
    detail = f"{len(restarts)} killed and started again" if restarts else "none ended in mid-run"
    if bad:
        detail = f"{', '.join(map(str, bad))} ended by itself"
    return Check("no_consumer_failed_by_itself", not bad, detail)
