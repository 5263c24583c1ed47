"""What the ledger says of recharges, read plainly with SQL of the lab's own."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

OPEN_STATES = ("proving", "created", "confirming", "succeeded", "credited", "declined", "withdrawn")
WORKER = "billing/recharge"  # the author of what the worker changes


@dataclass(frozen=True, slots=True)
class IntentRow:
    """An intent as it stands. `usage_position`: at least how far the books had read when it was opened. Times are ms
    since 1970 UTC; `closed_ms` None while it is open, `credit_seq` None without a credit."""

    account: str
    episode: int
    timeline: str
    state: str
    payment_id: str | None
    amount_micros: int
    credit_seq: int | None
    usage_position: int
    declined: bool
    created_ms: int
    closed_ms: int | None

    @property
    def open(self) -> bool:
        return self.state in OPEN_STATES


@dataclass(frozen=True, slots=True)
class CreditRow:
    """An entry of the journal with origin recharge, and its `ledger_seq`."""

    account: str
    ledger_seq: int
    amount_micros: int


@dataclass(frozen=True, slots=True)
class UsedBy:
    """How an account's usage added up along its partition's log; offsets ascend."""

    offsets: list[int] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    totals_micros: list[int] = field(default_factory=list)

    def add(self, offset: int, time_ms: int, amount_micros: int) -> None:
        self.offsets.append(offset)
        self.times_ms.append(time_ms)
        self.totals_micros.append((self.totals_micros[-1] if self.totals_micros else 0) + amount_micros)

    def below(self, offset: int) -> int:
        """What was used at offsets below `offset`."""
        count = bisect_left(self.offsets, offset)
        return self.totals_micros[count - 1] if count else 0

    def time_of_exceeding(self, micros: int) -> int | None:
        """Log time (ms) of the record with which more than `micros` was used; None: never."""
        count = bisect_left(self.totals_micros, micros + 1)
        return self.times_ms[count] if count < len(self.times_ms) else None


@dataclass(frozen=True, slots=True)
class RechargeBooks:
    """All of it at one moment. `refusals` counts evaluations by the name of the refusal; `refused_cards` are accounts
    whose card could not be saved; `suspended` maps accounts to who suspended them; `limiting` maps accounts to what
    stands in the way of a recharge, by its name; `used` has the accounts that were asked for and have used anything."""

    intents: list[IntentRow]
    credits: list[CreditRow]
    refusals: Counter[str]
    refused_cards: set[str]
    suspended: dict[str, str]
    limiting: dict[str, str]
    used: Mapping[str, UsedBy]

    @property
    def open(self) -> int:
        """How many intents are under way."""
        return sum(intent.open for intent in self.intents)


@dataclass(frozen=True, slots=True)
class Counts:
    """The same in a few numbers, cheap enough to ask again and again."""

    charged: int = 0
    declined: int = 0
    open: int = 0
    refusals: int = 0
    suspended: int = 0


async def count_recharges(pool: asyncpg.Pool[asyncpg.Record]) -> Counts:
    """`charged` are intents whose payment succeeded, `refusals` evaluations that said no."""
    row = await pool.fetchrow(_COUNTS, list(OPEN_STATES))
    assert row is not None
    return Counts(**row)


_COUNTS = """
select count(*) filter (where state in ('succeeded', 'credited', 'confirmed')) as charged,
       count(*) filter (where declined_at is not null)
           + (select count(*) from recharge_cards where declines > 0) as declined,
       count(*) filter (where state = any ($1)) as open,
       (select coalesce(sum(times), 0)::bigint from recharge_evaluations where refusal is not null) as refusals,
       (select count(*) from accounts where status = 'suspended') as suspended
  from recharge_intents
"""


async def read_recharges(pool: asyncpg.Pool[asyncpg.Record], accounts: Sequence[str]) -> RechargeBooks:
    """Everything about recharges, in one snapshot; how usage added up only of `accounts`."""
    async with pool.acquire(timeout=10) as c, c.transaction(isolation="repeatable_read", readonly=True):
        intents = await c.fetch(_INTENTS)
        credits_ = await c.fetch(_CREDITS)
        refusals = await c.fetch(
            "select refusal, sum(times)::bigint as times from recharge_evaluations"
            " where refusal is not null group by refusal"
        )
        cards = await c.fetch("select account_id from recharge_cards where declines > 0")
        suspended = await c.fetch(_SUSPENDED)
        limiting = await c.fetch(_LIMITING)
        usage = await c.fetch(_USAGE, list(accounts))
    used: dict[str, UsedBy] = {}
    for row in usage:
        used.setdefault(row["account_id"], UsedBy()).add(row["log_offset"], row["log_time_ms"], row["amount_micros"])
    return RechargeBooks(
        intents=[_intent(row) for row in intents],
        credits=[CreditRow(row["account_id"], row["ledger_seq"], row["amount_micros"]) for row in credits_],
        refusals=Counter({row["refusal"]: row["times"] for row in refusals}),
        refused_cards={row["account_id"] for row in cards},
        suspended={row["account_id"]: row["author"] for row in suspended},
        limiting={row["account_id"]: row["last_outcome"] for row in limiting},
        used=used,
    )


_INTENTS = """
select account_id, episode, timeline, state, payment_id, amount_micros, credit_seq, usage_position,
       declined_at is not null as declined,
       floor(extract(epoch from created_at) * 1000)::bigint as created_ms,
       floor(extract(epoch from closed_at) * 1000)::bigint as closed_ms
  from recharge_intents order by account_id, episode
"""
_CREDITS = """
select j.account_id, j.ledger_seq, p.amount_micros
  from journal j join postings p on p.journal_id = j.id and p.ledger_account = 'customer'
 where j.kind = 'entry' and j.origin = 'recharge'
"""
_SUSPENDED = """
select a.id as account_id,
       (select j.author from journal j where j.account_id = a.id and j.kind = 'changed'
         order by j.ledger_seq desc limit 1) as author
  from accounts a where a.status = 'suspended'
"""
# What an account was last refused for. One whose payment was withdrawn waits for the minimum interval and is not looked
# at in between, so it has no such refusal; a little more than the interval, for the evaluation after it.
_LIMITING = """
select account_id, last_outcome from recharge_due
 where last_outcome is not null and account_id not in (select account_id from recharge_intents
        where state = 'cancelled' and declined_at is null and created_at > clock_timestamp() - interval '75 seconds')
union all
select distinct account_id, 'minimum_interval' from recharge_intents
 where state = 'cancelled' and declined_at is null and created_at > clock_timestamp() - interval '75 seconds'
"""
_USAGE = """
select account_id, log_offset, log_time_ms, amount_micros from usage
 where amount_micros > 0 and account_id = any ($1) order by account_id, log_offset
"""


def _intent(row: asyncpg.Record) -> IntentRow:
    return IntentRow(
        account=row["account_id"],
        episode=row["episode"],
        timeline=row["timeline"],
        state=row["state"],
        payment_id=row["payment_id"],
        amount_micros=row["amount_micros"],
        credit_seq=row["credit_seq"],
        usage_position=row["usage_position"],
        declined=row["declined"],
        created_ms=row["created_ms"],
        closed_ms=row["closed_ms"],
    )
