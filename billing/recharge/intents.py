"""Intents as they are kept: leased by one worker at a time, changed only by what the protocol makes of an event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billing.ledger.database import Connection, Pool, fetch, fetchrow
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.recharge import metrics, records
from billing.recharge.policy import Verdict
from billing.recharge.protocol import CLOSED, Event, Intent, State, step
from billing.recharge.records import Stage

LEASE_MS = 30_000


@dataclass(frozen=True, slots=True)
class StoredIntent:
    """One recharge: its frozen parameters, where it stands (`intent`) and whose it is now. `lease_epoch` fences: a
    save under an older one changes nothing. `usage_position`: no proof may be behind it. `late`: it succeeded after
    it had been closed. Times are the ledger's, in UTC."""

    id: int
    account: str
    home_partition: int
    episode: int
    timeline: str
    currency: str
    amount_micros: int
    amount_minor: int
    customer: str
    payment_method: str
    usage_position: int
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    intent: Intent
    late: bool
    lease_owner: str | None
    lease_epoch: int

    @property
    def state(self) -> State:
        return self.intent.state

    @property
    def open(self) -> bool:
        return self.intent.state not in CLOSED


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Nothing was changed: another worker drives the intent, or it is in another state by now. Drop it (S37)."""

    id: int


async def lease(pool: Pool, limit: int, owner: str, ttl_ms: int = LEASE_MS) -> list[StoredIntent]:
    """Up to `limit` open intents whose time has come and that nobody drives, leased to `owner` for `ttl_ms`."""
    return [from_row(row) for row in await fetch(pool, query("recharge_intents.lease"), limit, owner, ttl_ms)]


async def renew(pool: Pool, stored: StoredIntent, ttl_ms: int = LEASE_MS) -> bool:
    """Keep the lease for `ttl_ms` from now; False when it is lost."""
    return await fetchrow(pool, query("recharge_intents.renew"), stored.id, stored.lease_epoch, ttl_ms) is not None


async def release(pool: Pool, stored: StoredIntent, *, again_in_ms: int) -> bool:
    """Let another worker (or this one) look again in `again_in_ms`; False when the lease was lost."""
    row = await fetchrow(pool, query("recharge_intents.release"), stored.id, stored.lease_epoch, again_in_ms)
    return row is not None


async def save(
    pool: Pool,
    stored: StoredIntent,
    event: Event,
    *,
    verdicts: tuple[Verdict, ...] = (),
    stage: Stage = "proof",
    again_in_ms: int = 0,
) -> StoredIntent | LeaseLost:
    """Persist what came of an action, with the checks that were made, before the next side effect.

    Only while the lease and the state are those of `stored`. Raises IllegalEvent for an event that the state cannot
    meet, and what asyncpg raises; after a lost connection load the intent again.
    """
    after = step(stored.intent, event)

    async def work(connection: Connection) -> StoredIntent | LeaseLost:
        row = await connection.fetchrow(
            query("recharge_intents.save"), stored.id, stored.lease_epoch, stored.state, *_facts(after), again_in_ms
        )
        if row is None:
            return LeaseLost(stored.id)
        if verdicts:
            await records.add(connection, stored.account, stage, verdicts, timeline=stored.timeline, intent=stored.id)
        return from_row(row)

    saved = await in_transaction(pool, work)
    if isinstance(saved, LeaseLost):
        metrics.leases_lost.inc()
        return saved
    count_change(stored, saved)
    records.count(stage, verdicts)
    return saved


async def observe(pool: Pool, intent: int, event: Event) -> StoredIntent | None:
    """Apply what was seen from outside (a webhook, the gateway's list), whoever holds the lease; that worker's next
    save is refused. None: no such intent. Raises IllegalEvent as `save`."""

    async def work(connection: Connection) -> tuple[StoredIntent, StoredIntent] | None:
        row = await connection.fetchrow(query("recharge_intents.lock"), intent)
        if row is None:
            return None
        before = from_row(row)
        after = step(before.intent, event)
        return before, before if after == before.intent else await overrule(connection, before, after, fence=True)

    found = await in_transaction(pool, work)
    if found is None:
        return None
    count_change(*found)
    return found[1]


async def overrule(connection: Connection, before: StoredIntent, after: Intent, *, fence: bool) -> StoredIntent:
    """Write `after` on a connection that holds the row's lock; `fence` takes the lease away from whoever has it."""
    row = await connection.fetchrow(query("recharge_intents.overrule"), before.id, *_facts(after), int(fence))
    assert row is not None  # locked, and never deleted
    return from_row(row)


async def find(pool: Pool, intent: int) -> StoredIntent | None:
    return _maybe(await fetchrow(pool, query("recharge_intents.by_id"), intent))


async def find_by_payment(pool: Pool, payment_id: str) -> StoredIntent | None:
    """The intent that remembers this payment."""
    return _maybe(await fetchrow(pool, query("recharge_intents.by_payment"), payment_id))


async def find_by_episode(pool: Pool, account: str, episode: int, timeline: str) -> StoredIntent | None:
    """The intent that a payment's metadata name: for one that was made but not remembered (S29)."""
    return _maybe(await fetchrow(pool, query("recharge_intents.by_episode"), account, episode, timeline))


async def open_of(pool: Pool, account: str) -> list[StoredIntent]:
    """The account's open intents: at most one, and late successes that are not read back yet."""
    return [from_row(row) for row in await fetch(pool, query("recharge_intents.open_of"), account)]


async def counts(pool: Pool) -> dict[State, int]:
    """How many intents there are in each state."""
    return {State(row["state"]): row["intents"] for row in await fetch(pool, query("recharge_intents.counts"))}


def count_change(before: StoredIntent, after: StoredIntent) -> None:
    """Metrics of a change, after its commit."""
    if after.state is not before.state:
        metrics.states.labels(after.state.value).inc()
        if after.late and not before.late:
            metrics.late_successes.inc()


def from_row(row: Any) -> StoredIntent:
    """Of a row of recharge_intents with the account's home_partition."""
    intent = Intent(
        state=State(row["state"]),
        payment_id=row["payment_id"],
        received_minor=row["received_minor"],
        credit_seq=row["credit_seq"],
        create_attempt=row["create_attempt"],
        confirm_attempt=row["confirm_attempt"],
        reason=row["reason"],
    )
    return StoredIntent(
        id=row["id"],
        account=row["account_id"],
        home_partition=row["home_partition"],
        episode=row["episode"],
        timeline=row["timeline"],
        currency=row["currency"],
        amount_micros=row["amount_micros"],
        amount_minor=row["amount_minor"],
        customer=row["customer"],
        payment_method=row["payment_method"],
        usage_position=row["usage_position"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        closed_at=row["closed_at"],
        intent=intent,
        late=row["late"],
        lease_owner=row["lease_owner"],
        lease_epoch=row["lease_epoch"],
    )


def _maybe(row: Any) -> StoredIntent | None:
    return None if row is None else from_row(row)


def _facts(intent: Intent) -> tuple[object, ...]:
    return (
        *(intent.state.value, intent.payment_id, intent.received_minor, intent.credit_seq),
        *(intent.create_attempt, intent.confirm_attempt, intent.reason),
    )
