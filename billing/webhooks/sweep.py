"""The gateway's refunds and disputes of the last months, held against the ledger: what no webhook told is booked here.

A sweep lists all that were created in the window, because the list shows what has become of them since, and takes each
payment of ours the way that a webhook takes it (`Notices.taken_back`); so whichever comes first, it is booked once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import structlog

from billing.ledger.database import fetch
from billing.ledger.queries import query
from billing.ledger.trouble import Trouble, describe, trouble_of
from billing.recharge.store import RechargeStore
from billing.stream.backoff import Clock
from billing.webhooks import metrics
from billing.webhooks.notices import Books, Notices
from billing.webhooks.taken_back import GoneBackLists, Listed, ListKind, NotRead

log = structlog.get_logger(__name__)

KINDS: tuple[ListKind, ...] = ("refunds", "disputes")
MOST_PAGES = 200  # of each: 20,000 refunds and as many disputes, the newest
AWAY_IN_A_ROW = 3  # payments that cannot be read for no reason of their own: one alone must not hide those behind it
PACE_S = 0.1  # between two pages, and between two payments: some calls a second, of the hundred that the gateway allows
DAY_MS = 86_400_000

Outcome: TypeAlias = Literal["complete", "partial", "gateway_away", "ledger_away", "failed"]
_State: TypeAlias = tuple[str, str]  # id and status of a refund or dispute


@dataclass(slots=True)
class _Found:
    """What is listed of each payment of ours, and whether that is all that the gateway has of the window."""

    states: dict[str, set[_State]] = field(default_factory=dict)
    complete: bool = True


class Sweep:
    """Remembers what it has booked, so that a payment is read again only after something of it has changed. That is
    never more than one sweep lists, and is lost with the process: the first sweep of each reads every payment listed.
    """

    def __init__(
        self,
        store: RechargeStore,
        lists: GoneBackLists,
        notices: Notices,
        clock: Clock,
        *,
        window_days: int,
        most_pages: int = MOST_PAGES,
    ) -> None:
        self._store = store
        self._lists = lists
        self._notices = notices
        self._clock = clock
        self._window_ms = window_days * DAY_MS
        self._most_pages = most_pages
        self._booked: set[_State] = set()
        self.last: Outcome | None = None  # how the last one ended

    async def run(self, every_s: float) -> None:
        """Until cancelled: one now, and one `every_s` after each has ended."""
        while True:
            await self.sweep()
            await self._clock.sleep(every_s)

    async def sweep(self) -> Outcome:
        """One sweep. Raises nothing: what a server that is away leaves undone, the next one does."""
        try:
            outcome = await self._sweep()
        except Exception as error:
            if trouble_of(error) is Trouble.BUG:
                log.exception("webhook.sweep_failed")
                outcome = "failed"
            else:
                log.warning("webhook.sweep_waiting", error=describe(error))
                outcome = "ledger_away"
        metrics.SWEEPS.labels(outcome).inc()
        self.last = outcome
        return outcome

    async def _sweep(self) -> Outcome:
        since_ms = await self._store.now_ms() - self._window_ms
        found = _Found()
        for kind in KINDS:  # all of it is listed before anything is read: what is read is not older than the list
            trouble = await self._list(kind, since_ms // 1000, found)
            if trouble is not None:
                log.warning("webhook.sweep_not_listed", kind=kind, reason=trouble.reason)
                return "gateway_away"
        return await self._book(found)

    async def _list(self, kind: ListKind, since_s: int, found: _Found) -> NotRead | None:
        """Add what is listed of payments of ours; NotRead where the gateway does not say."""
        after: str | None = None
        for _ in range(self._most_pages):
            page = await self._lists.recent(kind, since_s, after)
            if isinstance(page, NotRead):
                return page
            await self._add_known(page.listed, found)
            after = page.next_after
            if after is None:
                return None
            await self._clock.sleep(PACE_S)
        log.warning("webhook.sweep_cut", kind=kind, count=self._most_pages)
        found.complete = False
        return None

    async def _add_known(self, listed: tuple[Listed, ...], found: _Found) -> None:
        states: dict[str, set[_State]] = {}
        for each in listed:
            if each.payment is not None:
                states.setdefault(each.payment, set()).add((each.id, each.status))
        for row in await fetch(self._store.pool, query("recharge_webhooks.known"), list(states)):
            payment: str = row["payment_id"]
            found.states.setdefault(payment, set()).update(states[payment])

    async def _book(self, found: _Found) -> Outcome:
        """Take each payment of which something listed was not booked before."""
        self._booked &= set().union(*found.states.values())  # what is listed no more need not be remembered
        outcome: Outcome = "complete" if found.complete else "partial"
        read = away = 0
        for payment, states in found.states.items():
            if states <= self._booked:
                continue
            books = await self._take(payment)
            read += 1
            away = away + 1 if isinstance(books, NotRead) and books.away else 0
            if away == AWAY_IN_A_ROW:
                log.warning("webhook.sweep_ended", count=read)
                return "gateway_away"
            if isinstance(books, NotRead):
                outcome = "partial"
            elif books == "booked":
                self._booked |= states
            elif books == "uncredited":
                outcome = "partial"
            await self._clock.sleep(PACE_S)
        if away:
            outcome = "gateway_away"
        log.info("webhook.swept", outcome=outcome, found=len(found.states), count=read)
        return outcome

    async def _take(self, payment: str) -> Books | Literal["passed"] | NotRead:
        """As a webhook would; a bug is of this payment alone. Raises what asyncpg raises when the ledger is away."""
        try:
            return await self._notices.taken_back(payment)
        except Exception as error:
            if trouble_of(error) not in {Trouble.BUG, Trouble.OVERFLOW}:
                raise
            log.exception("webhook.sweep_failed")
            return NotRead("rejected")
