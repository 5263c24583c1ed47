"""What the pipeline says of itself: `billing ledger verify` and `billing reconcile`, as checks of a run."""

from __future__ import annotations

from billing.cli.common import ledger, store
from billing.lab.checks import Check
from billing.ledger.verify import verify
from billing.reconcile.books import NotComparable, compare_books
from billing.settings import Settings


async def own_checks(settings: Settings) -> list[Check]:
    """Both verdicts on a running deployment."""
    return [await _verify(settings), await _reconcile(settings)]


async def _verify(settings: Settings) -> Check:
    async with ledger(settings) as pool:
        results = await verify(pool)
    broken = [
        f"{check.name} ({check.violations}, for example {check.example})" for check in results if not check.passed
    ]
    return Check("ledger_verify", not broken, "; ".join(broken) or f"{len(results)} rules hold")


async def _reconcile(settings: Settings) -> Check:
    async with ledger(settings) as pool, store(settings) as functions:
        report = await compare_books(pool, functions, settings)
    if isinstance(report, NotComparable):
        return Check("reconcile", False, report.reason)
    detail = f"{report.equal:,} of {report.accounts:,} accounts equal"
    if report.named:
        detail += f" (for example {report.named[0].account}: {report.named[0].what})"
    return Check("reconcile", report.agreed, detail)
