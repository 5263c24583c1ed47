"""Evaluating due accounts: what the balance store shows, then checks 1 to 5 and the intent in one transaction; for
those that are not charged, whether they are to be suspended, or no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from billing.ledger.terms import NoSuchAccount
from billing.ledger.trouble import Trouble, describe, trouble_of
from billing.recharge import metrics
from billing.recharge.balances import Balances, Seen
from billing.recharge.card_saver import CardSaver
from billing.recharge.driver import Driver, Turn
from billing.recharge.due import Due
from billing.recharge.evaluation import EvaluateAnswer, Opened, RefusedBy
from billing.recharge.policy import Refusal
from billing.recharge.store import RechargeStore
from billing.recharge.suspension import Hindrance
from billing.recharge.suspensions import StatusChanged, StatusKept
from billing.stream.backoff import Clock

log = structlog.get_logger(__name__)

EVALUATION_S = 60.0
STATUS_WAITS_S = (0.2, 1.0)  # the other book is usually there a moment later; a signal a minute asks again anyway
_SOON = frozenset({Hindrance.LEDGER_LAGS, Hindrance.STORE_LAGS, Hindrance.BOOKS_DISAGREE})


class Evaluator:
    """`hand_over` takes an intent that was opened, under a lease of `owner`; False where it has no room for it now."""

    def __init__(
        self,
        store: RechargeStore,
        balances: Balances,
        saver: CardSaver,
        driver: Driver,
        clock: Clock,
        *,
        owner: str,
        lease_ms: int,
        hand_over: Callable[[Turn], bool],
    ) -> None:
        self._store = store
        self._balances = balances
        self._saver = saver
        self._driver = driver
        self._clock = clock
        self._owner = owner
        self._lease_ms = lease_ms
        self._hand_over = hand_over

    async def evaluate(self, due: Due) -> None:
        """Raises nothing: a due row that was taken up comes again by itself."""
        try:
            async with asyncio.timeout(EVALUATION_S):
                await self._evaluate(due)
        except Exception as error:
            metrics.broken.labels("evaluation").inc()
            report = log.exception if trouble_of(error) is Trouble.BUG else log.warning
            report("recharge.evaluation_broke_off", account=due.account, error=describe(error))

    async def look_at_status(self, account: str) -> None:
        """Suspend, or lift that, where it is time; raises what asyncpg raises."""
        await self._status(account, await self._balances.look(account))

    async def _evaluate(self, due: Due) -> None:
        seen, answer = await self._ask(due)
        if isinstance(answer, RefusedBy) and answer.refusal is Refusal.CARD_NOT_SAVED:
            if not await self._saver.save(due.account):
                return
            seen, answer = await self._ask(due)
        match answer:
            case RefusedBy():
                log.info("recharge.refused", account=due.account, reason=answer.refusal.value)
                await self._status(due.account, seen)
            case NoSuchAccount():
                log.error("recharge.no_such_account", account=due.account)
            case _:
                pass

    async def _ask(self, due: Due) -> tuple[Seen, EvaluateAnswer]:
        seen = await self._balances.look(due.account)
        asked_s = self._clock.monotonic()
        answer = await self._store.evaluate(
            due.account, seen.view, due=due, owner=self._owner, ttl_ms=self._lease_ms
        )
        if isinstance(answer, Opened):
            log.info(
                "recharge.opened",
                account=due.account,
                intent=answer.intent.id,
                episode=answer.intent.episode,
                amount_micros=answer.intent.amount_micros,
            )
            if not self._hand_over(self._driver.turn(answer.intent, asked_s, due.signalled_ms)):
                await self._store.release(answer.intent, again_in_ms=0)  # taken up as soon as there is room
        return seen, answer

    async def _status(self, account: str, seen: Seen) -> None:
        for wait_s in (*STATUS_WAITS_S, None):
            answer = await self._change_status(account, seen)
            if isinstance(answer, StatusChanged):
                log.info("recharge.status_changed", account=account, ledger_seq=answer.ledger_seq)
            soon = isinstance(answer, StatusKept) and answer.hindrance in _SOON
            if not soon or wait_s is None:
                return
            await self._clock.sleep(wait_s)
            seen = await self._balances.look(account)

    async def _change_status(self, account: str, seen: Seen) -> object:
        """Asks only where Redis shows a reason to; None otherwise (R1: nor where it shows nothing)."""
        if seen.known is None or not seen.view.healthy:
            return None
        if seen.known.status == "suspended":
            return await self._store.resume_if(account, seen.view)
        if seen.known.status == "open" and seen.view.level_micros + seen.known.credit_limit_micros <= 0:
            return await self._store.suspend_if(account, seen.view)
        return None
