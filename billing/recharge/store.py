"""The ledger side of recharge, in one place for the worker: every call is a transaction of its own.

What each does is described beside its function: due (asking), evaluation (deciding), intents (driving), crediting,
suspensions, switches (people). All raise what asyncpg raises when PostgreSQL is away; repeating is always safe.
"""

from __future__ import annotations

from collections.abc import Sequence

from billing.ledger.database import Pool, fetchrow
from billing.ledger.queries import query
from billing.ledger.terms import NoSuchAccount
from billing.recharge import crediting, due, evaluation, intents, records, suspensions, switches, views
from billing.recharge.crediting import CreditAnswer
from billing.recharge.due import CLAIM_MS, SWEEP_PAGE, Due, Mark, SweepKind, Swept
from billing.recharge.evaluation import EvaluateAnswer, FinalAnswer
from billing.recharge.intents import LEASE_MS, LeaseLost, StoredIntent
from billing.recharge.policy import Limits, StoreView, Verdict
from billing.recharge.protocol import Event, PaymentSucceeded, State
from billing.recharge.records import Stage
from billing.recharge.suspensions import StatusAnswer
from billing.recharge.switches import Switch
from billing.recharge.views import AccountView


class RechargeStore:
    """Binds the functions to a pool and to limits."""

    def __init__(self, pool: Pool, limits: Limits | None = None) -> None:
        self.pool = pool
        self.limits = limits or Limits()

    # --- asking ---

    async def mark_due(self, marks: Sequence[Mark]) -> None:
        await due.mark_due(self.pool, marks)

    async def claim_due(self, limit: int, claim_ms: int = CLAIM_MS) -> list[Due]:
        return await due.claim_due(self.pool, limit, claim_ms)

    async def next_due_in_ms(self) -> int | None:
        return await due.next_due_in_ms(self.pool)

    async def look_again(self, account: str, in_ms: int) -> None:
        await due.look_again(self.pool, account, in_ms)

    async def store_is_well(self) -> None:
        await due.store_is_well(self.pool)

    async def sweep(self, kind: SweepKind, after: str = "", page: int = SWEEP_PAGE) -> Swept:
        return await due.sweep(self.pool, kind, after, page)

    # --- deciding ---

    async def view(self, account: str) -> AccountView | NoSuchAccount:
        return await views.read(self.pool, account)

    async def evaluate(
        self,
        account: str,
        store: StoreView,
        *,
        due: Due | None = None,
        owner: str | None = None,
        ttl_ms: int = LEASE_MS,
    ) -> EvaluateAnswer:
        return await evaluation.evaluate(self.pool, self.limits, account, store, due=due, owner=owner, ttl_ms=ttl_ms)

    async def final(self, stored: StoredIntent, store: StoreView, earlier: Sequence[Verdict] = ()) -> FinalAnswer:
        return await evaluation.final(self.pool, self.limits, stored, store, earlier)

    # --- driving ---

    async def lease(self, limit: int, owner: str, ttl_ms: int = LEASE_MS) -> list[StoredIntent]:
        return await intents.lease(self.pool, limit, owner, ttl_ms)

    async def renew(self, stored: StoredIntent, ttl_ms: int = LEASE_MS) -> bool:
        return await intents.renew(self.pool, stored, ttl_ms)

    async def release(self, stored: StoredIntent, *, again_in_ms: int) -> bool:
        return await intents.release(self.pool, stored, again_in_ms=again_in_ms)

    async def save(
        self,
        stored: StoredIntent,
        event: Event,
        *,
        verdicts: tuple[Verdict, ...] = (),
        stage: Stage = "proof",
        again_in_ms: int = 0,
    ) -> StoredIntent | LeaseLost:
        return await intents.save(self.pool, stored, event, verdicts=verdicts, stage=stage, again_in_ms=again_in_ms)

    async def observe(self, intent: int, event: Event) -> StoredIntent | None:
        return await intents.observe(self.pool, intent, event)

    async def credit(self, intent: int, success: PaymentSucceeded | None = None) -> CreditAnswer:
        return await crediting.credit(self.pool, intent, success)

    async def find(self, intent: int) -> StoredIntent | None:
        return await intents.find(self.pool, intent)

    async def find_by_payment(self, payment_id: str) -> StoredIntent | None:
        return await intents.find_by_payment(self.pool, payment_id)

    async def find_by_episode(self, account: str, episode: int, timeline: str) -> StoredIntent | None:
        return await intents.find_by_episode(self.pool, account, episode, timeline)

    async def open_of(self, account: str) -> list[StoredIntent]:
        return await intents.open_of(self.pool, account)

    # --- suspending ---

    async def suspend_if(self, account: str, store: StoreView) -> StatusAnswer:
        return await suspensions.suspend_if(self.pool, self.limits, account, store)

    async def resume_if(self, account: str, store: StoreView) -> StatusAnswer:
        return await suspensions.resume_if(self.pool, self.limits, account, store)

    async def suspended(self, after: str = "", limit: int = 1000) -> list[str]:
        return await suspensions.suspended(self.pool, after, limit)

    # --- looking ---

    async def now_ms(self) -> int:
        """The ledger's clock, ms since 1970 UTC."""
        row = await fetchrow(self.pool, query("recharge_payments.now_ms"))
        assert row is not None
        now: int = row["now_ms"]
        return now

    async def counts(self) -> dict[State, int]:
        return await intents.counts(self.pool)

    async def switch(self) -> Switch:
        return await switches.switch(self.pool)

    async def breakers(self) -> list[switches.Breaker]:
        return await switches.breakers(self.pool, self.limits)

    async def evaluations(self, account: str, limit: int = 100) -> list[records.Evaluation]:
        return await records.of_account(self.pool, account, limit)
