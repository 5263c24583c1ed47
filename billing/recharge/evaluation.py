"""Checks 1 to 5 and the insert of the intent in one transaction; and the last look before money moves.

Locks are always taken in this order: the account's balance row, then the breaker's row, then the intent's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from billing.ledger.database import Connection, Pool
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import NoSuchAccount
from billing.money import minor_unit_micros
from billing.recharge import due as due_rows
from billing.recharge import intents, metrics, policy, records, switches, views
from billing.recharge.due import Due
from billing.recharge.intents import LEASE_MS, LeaseLost, StoredIntent
from billing.recharge.policy import Limits, Refusal, StoreView, Verdict
from billing.recharge.protocol import CheckPassed, CheckRefused, step
from billing.recharge.views import AccountView


@dataclass(frozen=True, slots=True)
class Opened:
    """All checks passed; the intent is `proving`, leased to the owner that was given."""

    intent: StoredIntent
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class RefusedBy:
    """The last of `verdicts` said no; nothing was charged. The verdicts are stored."""

    account: str
    verdicts: tuple[Verdict, ...]

    @property
    def refusal(self) -> Refusal:
        refusal = records.refusal_of(self.verdicts)
        assert refusal is not None
        return refusal


@dataclass(frozen=True, slots=True)
class Passed:
    """The intent is `confirming`: its confirmation may be sent now, and only now."""

    intent: StoredIntent
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The last look said no: the intent is `withdrawn`, its payment must be cancelled."""

    intent: StoredIntent
    verdicts: tuple[Verdict, ...]


EvaluateAnswer = Opened | RefusedBy | NoSuchAccount
FinalAnswer = Passed | Withdrawn | LeaseLost


async def evaluate(
    pool: Pool,
    limits: Limits,
    account: str,
    store: StoreView,
    *,
    due: Due | None = None,
    owner: str | None = None,
    ttl_ms: int = LEASE_MS,
) -> EvaluateAnswer:
    """Decide on one account; `store` is what the balance store showed, read before. With `due`, its row is settled in
    the same transaction; with `owner`, a new intent is leased to it. Raises what asyncpg raises; nothing is charged by
    that, and repeating finds what was done."""

    async def work(connection: Connection) -> EvaluateAnswer:
        view = await views.locked(connection, account)
        if isinstance(view, NoSuchAccount):
            return view
        view, verdicts = await _judge(connection, view, store, limits)
        refusal = records.refusal_of(verdicts)
        if refusal is not None:
            await _refuse(connection, view, verdicts, refusal, limits)
            if due is not None:
                await due_rows.settle_refused(connection, due, refusal)
            return RefusedBy(account, verdicts)
        position = max(store.usage_position, due.usage_position if due is not None else 0)
        intent = await _open(connection, view, usage_position=position, owner=owner, ttl_ms=ttl_ms)
        await records.add(connection, account, "open", verdicts, timeline=view.timeline, intent=intent.id)
        if due is not None:
            await due_rows.settle_opened(connection, due, limits)
        return Opened(intent, verdicts)

    answer = await in_transaction(pool, work)
    match answer:
        case Opened(intent=intent):
            metrics.opened.inc()
            metrics.opened_micros.labels(intent.currency).inc(intent.amount_micros)
            metrics.states.labels(intent.state.value).inc()
        case RefusedBy(verdicts=verdicts):
            records.count("open", verdicts)
    return answer


async def _judge(
    connection: Connection, view: AccountView, store: StoreView, limits: Limits
) -> tuple[AccountView, tuple[Verdict, ...]]:
    """Checks 1 to 5. The breaker's row, which all accounts of a currency share, is locked only for those that come so
    far that they need it."""
    verdicts = _before_caps(view, store, limits)
    if records.refusal_of(verdicts) is not None:
        return view, verdicts
    view = await views.with_breaker(connection, view, limits)
    return view, (*verdicts, policy.check_caps(view.history, view.terms, limits, view.now_ms))


async def _refuse(
    connection: Connection, view: AccountView, verdicts: tuple[Verdict, ...], refusal: Refusal, limits: Limits
) -> None:
    if refusal is Refusal.BREAKER_TRIPPED:
        await switches.trip(connection, view.currency, view.account, limits)
        metrics.breaker_trips.labels(view.currency).inc()
    await records.add(connection, view.account, "open", verdicts, timeline=view.timeline)


def _before_caps(view: AccountView, store: StoreView, limits: Limits) -> tuple[Verdict, ...]:
    return policy.until_refused(
        lambda: policy.check_store(store),
        lambda: policy.check_level(store, view.terms),
        lambda: policy.check_ledger(store, view.ledger, view.terms, limits),
        lambda: policy.check_episode(view.history),
    )


async def _open(
    connection: Connection, view: AccountView, *, usage_position: int, owner: str | None, ttl_ms: int
) -> StoredIntent:
    terms, unit_micros = view.terms, minor_unit_micros(view.currency)
    assert terms.recharge_by_micros is not None  # check 2: the terms are complete
    amount_minor, rest = divmod(terms.recharge_by_micros, unit_micros)
    if rest:
        raise ValueError(f"account {view.account}: recharge_by is not whole minor units of {view.currency}")
    await connection.execute(query("recharge_intents.ensure_episode"), view.account)
    row = await connection.fetchrow(
        query("recharge_intents.open"),
        *(view.account, view.timeline, view.currency, terms.recharge_by_micros, amount_minor),
        *(terms.customer, terms.payment_method, usage_position, owner, ttl_ms),
    )
    return intents.from_row(row)


async def final(
    pool: Pool, limits: Limits, stored: StoredIntent, store: StoreView, earlier: Sequence[Verdict] = ()
) -> FinalAnswer:
    """The last look before money moves, and its outcome, in one transaction that holds the account's row (S48).

    `earlier`: verdicts on the guard and the proof, made just before; `store`: the balance as the fresh proof showed it.
    Then the level in both books, freezes, lag, the pause switch and the breaker are looked at again. Passed: the intent
    is `confirming`. The intent must be `created` and leased.
    """

    async def work(connection: Connection) -> FinalAnswer:
        view = await views.locked(connection, stored.account)
        assert not isinstance(view, NoSuchAccount)  # accounts are never deleted
        now = intents.from_row(await connection.fetchrow(query("recharge_intents.lock"), stored.id))
        if now.lease_epoch != stored.lease_epoch or now.intent != stored.intent:
            return LeaseLost(stored.id)
        verdicts = tuple(earlier)
        if records.refusal_of(verdicts) is None:
            verdicts += _last_checks(view, store, limits)
        refusal = records.refusal_of(verdicts)
        after = step(stored.intent, CheckPassed() if refusal is None else CheckRefused(refusal.value))
        changed = await intents.overrule(connection, now, after, fence=False)
        await records.add(connection, stored.account, "final", verdicts, timeline=view.timeline, intent=stored.id)
        return Passed(changed, verdicts) if refusal is None else Withdrawn(changed, verdicts)

    answer = await in_transaction(pool, work)
    if isinstance(answer, LeaseLost):
        metrics.leases_lost.inc()
    else:
        intents.count_change(stored, answer.intent)
        records.count("final", answer.verdicts)
    return answer


def _last_checks(view: AccountView, store: StoreView, limits: Limits) -> tuple[Verdict, ...]:
    return policy.until_refused(
        lambda: policy.check_store(store),
        lambda: policy.check_level(store, view.terms),
        lambda: policy.check_ledger(store, view.ledger, view.terms, limits),
        lambda: policy.check_switches(view.history),
    )
