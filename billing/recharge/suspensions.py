"""Suspending exhausted accounts and lifting that again, through the ledger and its outbox.

A suspension is lifted by the worker's sweep, not by whatever books a credit: a credit can come from anywhere (an
operator, a recharge, a refund taken back), and lifting needs both books, which only the worker has looked at.
Who suspended is what the journal says: the author of the newest change of the status. An operator's is never lifted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from billing.ledger.accounts import set_in
from billing.ledger.database import Connection, Pool, fetch
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import Changed, Changes, NoSuchAccount
from billing.recharge import metrics, records, views
from billing.recharge.policy import Limits, StoreView, Verdict
from billing.recharge.suspension import Hindrance, Standing, resumption_hindrance, suspension_hindrance

AUTHOR = "billing/recharge"


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The status was changed as entry `ledger_seq`; Redis hears of it through the outbox."""

    account: str
    ledger_seq: int


@dataclass(frozen=True, slots=True)
class StatusKept:
    """Nothing was changed, because of `hindrance`."""

    account: str
    hindrance: Hindrance


StatusAnswer = StatusChanged | StatusKept | NoSuchAccount


async def suspend_if(pool: Pool, limits: Limits, account: str, store: StoreView) -> StatusAnswer:
    """Suspend an open account that usage has exhausted in both books and that no recharge can help."""
    answer = await _change(pool, limits, account, store, "suspended")
    if isinstance(answer, StatusChanged):
        metrics.suspended.inc()
    return answer


async def resume_if(pool: Pool, limits: Limits, account: str, store: StoreView) -> StatusAnswer:
    """Lift our own suspension of an account that is exhausted in neither book any more."""
    answer = await _change(pool, limits, account, store, "open")
    if isinstance(answer, StatusChanged):
        metrics.resumed.inc()
    return answer


async def suspended(pool: Pool, after: str = "", limit: int = 1000) -> list[str]:
    """Accounts that we suspended, in id order after `after`: the sweep asks `resume_if` for each."""
    return [row["id"] for row in await fetch(pool, query("recharge_suspension.suspended"), after, limit, AUTHOR)]


_REASONS = {"suspended": "exhausted in both books, no recharge on its way", "open": "no longer exhausted"}
_ASK: dict[str, Callable[[Standing, Limits], Hindrance | None]] = {
    "suspended": suspension_hindrance,
    "open": resumption_hindrance,
}


async def _change(
    pool: Pool, limits: Limits, account: str, store: StoreView, status: Literal["open", "suspended"]
) -> StatusAnswer:
    stage: records.Stage = "suspend" if status == "suspended" else "resume"

    async def work(connection: Connection) -> StatusAnswer:
        view = await views.locked(connection, account)
        if isinstance(view, NoSuchAccount):
            return view
        author = await connection.fetchval(query("recharge_suspension.suspended_by"), account)
        standing = _standing(view, store, by_us=author == AUTHOR)
        hindrance = _ASK[status](standing, limits)
        if hindrance is not None:
            return StatusKept(account, hindrance)
        changed = await set_in(connection, account, Changes(status=status), author=AUTHOR, reason=_REASONS[status])
        assert isinstance(changed, Changed), changed  # the row is locked and its status was looked at
        await records.add(connection, account, stage, (_seen(standing),), timeline=view.timeline)
        return StatusChanged(account, changed.ledger_seq)

    answer = await in_transaction(pool, work)
    if isinstance(answer, StatusKept):
        metrics.refusals.labels(stage, answer.hindrance.value).inc()
    return answer


def _standing(view: views.AccountView, store: StoreView, *, by_us: bool) -> Standing:
    return Standing(
        store=store,
        ledger=view.ledger,
        terms=view.terms,
        history=view.history,
        status=view.status,
        credit_limit_micros=view.credit_limit_micros,
        suspended_by_us=by_us,
        now_ms=view.now_ms,
    )


def _seen(standing: Standing) -> Verdict:
    return Verdict(
        "suspension",
        None,
        {
            "store_level_micros": standing.store.level_micros,
            "ledger_level_micros": standing.ledger.level_micros,
            "credit_limit_micros": standing.credit_limit_micros,
            "store_position": standing.store.usage_position,
            "ledger_position": standing.ledger.usage_position,
            "declines_in_a_row": standing.history.declines_in_a_row,
            "complete_terms": standing.terms.complete,
        },
    )
