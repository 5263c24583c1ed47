"""The recharge worker: evaluates due accounts, drives open intents, and sweeps for what signals and answers missed.

Several may run side by side: due rows and intents are leased. Everything it knows is in the ledger, so it may be killed
at any moment; what it had in hand is taken over when the lease ends.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from billing.ledger.trouble import Trouble, describe, trouble_of
from billing.recharge import metrics
from billing.recharge.balances import Balances
from billing.recharge.card_saver import CardSaver
from billing.recharge.driver import Driver, Turn
from billing.recharge.due import SweepKind
from billing.recharge.evaluator import Evaluator
from billing.recharge.gateway import Gateway
from billing.recharge.payments import PaymentSweep
from billing.recharge.protocol import State
from billing.recharge.slots import Slots
from billing.recharge.store import RechargeStore
from billing.recharge.worker_settings import Timing
from billing.stream.backoff import Backoff, Clock, SystemClock

log = structlog.get_logger(__name__)

EVALUATIONS = 16  # accounts evaluated at once
TURNS = 16  # intents driven at once
LONGEST_IDLE_S = 0.5  # other workers' signals and intents are found by looking
SHORTEST_IDLE_S = 0.01
FINISH_S = 8.0
SWEEP_PACE_S = 0.25  # between two pages
STATUS_PAGE = 200
COUNT_EVERY_S = 10.0
KINDS: tuple[SweepKind, ...] = ("low", "exhausted")
RECENT_MS, ALL_MS = 900_000, 48 * 3_600_000


class Worker:
    """Keep `run` running; then `finish`. `wake` it when accounts have become due."""

    def __init__(
        self,
        store: RechargeStore,
        gateway: Gateway,
        balances: Balances,
        timing: Timing,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.owner = f"worker-{secrets.token_hex(4)}"
        self._store = store
        self._balances = balances
        self._was_healthy = False
        self._timing = timing
        self._clock = clock or SystemClock()
        self._wake = asyncio.Event()
        self._evaluations, self._turns = Slots(EVALUATIONS), Slots(TURNS)
        self._driver = Driver(
            store,
            gateway,
            balances,
            self._clock,
            gateway_deadline_ms=timing.gateway_deadline_ms,
            lease_ms=timing.lease_ms,
        )
        self._evaluator = Evaluator(
            store,
            balances,
            CardSaver(store.pool, gateway),
            self._driver,
            self._clock,
            owner=self.owner,
            lease_ms=timing.lease_ms,
            hand_over=self._hand_over,
        )
        self._payments = PaymentSweep(store, gateway, self._clock)

    def wake(self) -> None:
        """Accounts have become due."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. Raises for a bug; a server that is away is waited for."""
        timing = self._timing
        async with asyncio.TaskGroup() as tasks:
            for name, work, pause_s in (
                ("evaluate", self._evaluate_due, 0.0),
                ("drive", self._drive_open, 0.0),
                ("sweep", self._sweep_accounts, timing.sweep_pause_s),
                ("statuses", self._sweep_suspended, timing.sweep_pause_s),
                ("payments", self._recent_payments, timing.payments_pause_s),
                ("all-payments", self._all_payments, timing.all_payments_pause_s),
                ("store", self._watch_store, LONGEST_IDLE_S),
                ("count", self._count, COUNT_EVERY_S),
            ):
                tasks.create_task(self._again_and_again(name, work, pause_s), name=f"recharge-{name}")

    async def finish(self) -> None:
        """After `run`: let what is in hand end, for a while. The rest is taken over by others."""
        await asyncio.gather(self._evaluations.finish(FINISH_S), self._turns.finish(FINISH_S))

    async def _again_and_again(self, name: str, work: Callable[[], Awaitable[None]], pause_s: float) -> None:
        backoff = Backoff(first_seconds=0.2, limit_seconds=5.0)
        while True:
            try:
                await work()
            except Exception as error:
                if trouble_of(error) is Trouble.BUG:
                    raise
                metrics.broken.labels(name).inc()
                if backoff.attempt % 10 == 0:
                    log.warning("recharge.waiting", kind=name, error=describe(error))
                await self._clock.sleep(backoff.next_seconds())
                continue
            backoff.reset()
            if pause_s:
                await self._clock.sleep(pause_s)

    # --- due accounts -------------------------------------------------------------------------------------

    async def _evaluate_due(self) -> None:
        """Take up what is due, as far as there are free slots; then wait for a signal, or the next one's time."""
        await self._evaluations.until_free()
        self._wake.clear()
        wanted = self._evaluations.free
        claimed = await self._store.claim_due(wanted)
        for due in claimed:
            self._evaluations.start(self._evaluator.evaluate(due), f"evaluate-{due.account}")
        if len(claimed) < wanted:
            in_ms = await self._store.next_due_in_ms()
            idle_s = LONGEST_IDLE_S if in_ms is None else in_ms / 1000
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LONGEST_IDLE_S, max(SHORTEST_IDLE_S, idle_s))):
                    await self._wake.wait()

    # --- open intents -------------------------------------------------------------------------------------

    def _hand_over(self, turn: Turn) -> bool:
        """Drive an intent; False without a free slot."""
        if self._turns.free <= 0:
            return False
        self._turns.start(self._driver.drive(turn), f"intent-{turn.stored.id}")
        return True

    async def _drive_open(self) -> None:
        """Take up open intents whose time has come and that nobody drives."""
        await self._turns.until_free()
        asked_s, wanted = self._clock.monotonic(), self._turns.free
        leased = await self._store.lease(wanted, self.owner, self._timing.lease_ms)
        for stored in leased:
            turn = self._driver.turn(stored, asked_s)
            if not self._hand_over(turn):  # intents that were opened meanwhile took the room
                await self._store.release(stored, again_in_ms=0)
        if len(leased) < wanted:
            await self._clock.sleep(LONGEST_IDLE_S / 2)

    async def _watch_store(self) -> None:
        """When the balance store is well again, what was refused meanwhile need not wait for its turn."""
        healthy = self._balances.healthy
        if healthy and not self._was_healthy:
            await self._store.store_is_well()
            self.wake()
        self._was_healthy = healthy

    # --- sweeps -------------------------------------------------------------------------------------------

    async def _sweep_accounts(self) -> None:
        """Accounts that are due or exhausted by the ledger and that no signal has named."""
        for kind in KINDS:
            after: str | None = ""
            while after is not None:
                swept = await self._store.sweep(kind, after)
                if swept.marked:
                    log.info("recharge.swept", kind=kind, count=swept.marked)
                    self.wake()
                after = swept.last
                await self._clock.sleep(SWEEP_PACE_S)

    async def _sweep_suspended(self) -> None:
        """Suspensions of ours that are to be lifted."""
        after = ""
        while accounts := await self._store.suspended(after, STATUS_PAGE):
            for account in accounts:
                await self._evaluator.look_at_status(account)
            after = accounts[-1]
            await self._clock.sleep(SWEEP_PACE_S)

    async def _recent_payments(self) -> None:
        await self._look_at_payments(RECENT_MS)

    async def _all_payments(self) -> None:
        await self._look_at_payments(ALL_MS)

    async def _look_at_payments(self, past_ms: int) -> None:
        """By the ledger's clock; the gateway's may be a little off, and both windows are wide."""
        now_ms = await self._store.now_ms()
        found = await self._payments.look(now_ms - past_ms)
        if found:
            log.warning("recharge.uncredited_payments", count=sum(found.values()), outcome=",".join(sorted(found)))

    async def _count(self) -> None:
        """Gauges."""
        counts = await self._store.counts()
        for state in State:
            metrics.intents.labels(state.value).set(counts.get(state, 0))
        await self._store.switch()
        await self._store.breakers()
