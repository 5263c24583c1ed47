"""After PostgreSQL was restored to an earlier time, or a standby that was behind was promoted (S28).

The ledger has forgotten what it committed since, but the log has not. A new timeline begins, so that everything of the
old one is recognised. What consumers have priced by is put back as it was: tariffs, plans, accounts. What moved money
(credits, corrections) becomes a finding for each, which a person books again; usage is settled again from the log by
itself; charges are found at the gateway. Recharge is frozen until all that is done.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
import structlog

from billing.ledger import metrics
from billing.ledger.database import Connection, Pool, fetch, fetchrow
from billing.ledger.findings import NewFinding, record, resolve
from billing.ledger.history import RESTORED, timelines
from billing.ledger.opening import import_accounts
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import Imported, NewAccount
from billing.reconcile.rebooking import ENTRY_FORGOTTEN
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from schemas.catalogue import PlanAssignment, TariffVersion, decode_catalogue
from schemas.common import MalformedMessage
from schemas.ledger import AccountChanged, AccountOpened, EntryPosted, LedgerEntry, decode_entry

log = structlog.get_logger(__name__)

CHUNK = 1_000


@dataclass(slots=True)
class PutBack:
    """What was put back, and what a person has to decide about (findings recorded now)."""

    before: str
    timeline: str
    tariffs: int = 0
    accounts: int = 0
    plans: int = 0
    findings: int = 0
    not_put_back: list[str] = field(default_factory=list)


async def begin_timeline(pool: Pool, *, author: str, reason: str) -> PutBack:
    """Begin a new timeline and lift what was halted on suspicion. Recharge stays frozen: its charges are not reconciled
    with the gateway's. Raises what asyncpg raises."""

    async def work(connection: Connection) -> PutBack:
        timeline = secrets.token_hex(8)
        before: str = await connection.fetchval(query("restoring.new_timeline"), timeline)
        await connection.execute(query("history.unsuspect"), RESTORED)
        detail = {"before": before, "timeline": timeline, "why": reason}
        await record(connection, NewFinding("ledger_restored", detail=detail))
        open_ = await connection.fetchval(query("findings.open"), "ledger_restored", None, None)
        await resolve(connection, open_, author=author, reason=reason, action="seen", detail=detail)
        return PutBack(before, timeline)

    done = await in_transaction(pool, work)
    metrics.suspected.set(0)
    log.warning("ledger.new_timeline", before=done.before, timeline=done.timeline, author=author)
    return done


async def put_back(pool: Pool, reader: LogReader, settings: Settings, done: PutBack, *, author: str) -> PutBack:
    """Tariffs, accounts and plans from the log, findings for the rest. May be repeated: what is there stays. Raises
    what asyncpg raises, LogAway."""
    tariffs, plans = await _catalogue(reader, settings.topics.tariffs)
    for tariff in tariffs:
        done.tariffs += await in_transaction(pool, lambda c, t=tariff: _add_tariff(c, t, author))  # type: ignore[misc]
    earlier = set(await timelines(pool)) - {done.timeline}
    for partition in range(settings.partitions):
        async for chunk in _entries(reader, settings.topics.entries, partition, earlier):
            await _entries_back(pool, chunk, partition, done, author)
    for plan in plans:
        done.plans += await in_transaction(pool, lambda c, p=plan: _add_plan(c, p))  # type: ignore[misc]
    return done


async def present_timeline(pool: Pool) -> PutBack:
    """For another `put_back` in the timeline that has begun."""
    known = await timelines(pool)
    return PutBack(known[-2] if len(known) > 1 else "", known[-1])


async def _catalogue(reader: LogReader, topic: str) -> tuple[list[TariffVersion], list[PlanAssignment]]:
    start, end = await reader.bounds(topic, 0)
    tariffs: dict[tuple[str, int], TariffVersion] = {}
    plans: dict[tuple[str, int], PlanAssignment] = {}
    async with aclosing(reader.read(topic, 0, start, end)) as records:
        async for found in records:
            if found.value is None:
                continue
            match decode_catalogue(found.value):
                case TariffVersion() as tariff:
                    tariffs[tariff.plan, tariff.version] = tariff
                case PlanAssignment() as plan:
                    plans[plan.account, plan.version] = plan
    return [tariffs[key] for key in sorted(tariffs)], [plans[key] for key in sorted(plans)]


async def _add_tariff(connection: Connection, tariff: TariffVersion, author: str) -> int:
    if await connection.fetchval(query("restoring.has_tariff"), tariff.plan, tariff.version):
        return 0
    await connection.execute(query("restoring.putting_back"))
    key = (tariff.plan, tariff.version)
    await connection.execute(query("restoring.add_tariff"), *key, tariff.currency, author, tariff.effective_ms)
    await connection.execute(query("restoring.add_rates"), *key, msgspec.json.encode(tariff.rates).decode())
    return 1


async def _add_plan(connection: Connection, plan: PlanAssignment) -> int:
    await connection.execute(query("restoring.putting_back"))
    values = (plan.account, plan.version, plan.plan, plan.effective_ms)
    added = await connection.fetchval(query("restoring.add_assignment"), *values)
    if added is None:
        return 0
    await connection.execute(query("restoring.newest_plan"), plan.account, plan.plan)
    return 1


async def _entries(reader: LogReader, topic: str, partition: int, of: set[str]) -> AsyncIterator[list[LedgerEntry]]:
    start, end = await reader.bounds(topic, partition)
    chunk: dict[tuple[str, int], LedgerEntry] = {}
    async with aclosing(reader.read(topic, partition, start, end)) as records:
        async for found in records:
            try:
                entry = decode_entry(found.value)
            except MalformedMessage:  # the in-flight consumer halted there
                continue
            if entry.timeline in of:
                chunk[entry.account, entry.ledger_seq] = entry
            if len(chunk) >= CHUNK:
                yield list(chunk.values())
                chunk = {}
    if chunk:
        yield list(chunk.values())


async def _entries_back(pool: Pool, entries: Sequence[LedgerEntry], partition: int, done: PutBack, author: str) -> None:
    rows = await fetch(
        pool, query("restoring.entries_at"), [e.account for e in entries], [e.ledger_seq for e in entries]
    )
    there = {(row["account_id"], row["ledger_seq"]): row for row in rows}
    for entry in entries:
        row = there[entry.account, entry.ledger_seq]
        match entry:
            case AccountOpened():
                if not row["known"]:
                    await _reopen(pool, entry, done, author)
            case EntryPosted():
                same = (row["kind"], row["origin"], row["reason"], row["amount_micros"])
                # the gateway's list is what says which charges there were
                if same != ("entry", entry.origin, entry.reason, entry.amount_micros) and entry.origin != "recharge":
                    await _forgotten(pool, entry, partition, done)
            case AccountChanged():
                if row["kind"] != "changed":
                    await _forgotten(pool, entry, partition, done)


async def _reopen(pool: Pool, entry: AccountOpened, done: PutBack, author: str) -> None:
    """As it was opened, at its place in the log: usage from there on is settled again. Its card is not in the log."""
    new = NewAccount(
        entry.account,
        entry.currency,
        entry.plan,
        credit_micros=entry.credit_micros,
        credit_limit_micros=entry.credit_limit_micros,
    )
    answer = await import_accounts(
        pool,
        [new],
        author=author,
        reason="the restored ledger had forgotten it",
        usage_positions={entry.account: entry.usage_position},
    )
    if isinstance(answer, Imported):
        done.accounts += answer.opened
    else:
        done.not_put_back.append(f"account {entry.account}: {answer.refusal}")


async def _forgotten(pool: Pool, entry: EntryPosted | AccountChanged, partition: int, done: PutBack) -> None:
    subject = f"{entry.timeline}:{entry.account}:{entry.ledger_seq}"
    if await fetchrow(pool, query("restoring.any_finding"), ENTRY_FORGOTTEN, subject) is not None:
        return
    detail = msgspec.to_builtins(entry)
    detail["seen"] = f"entry {entry.ledger_seq} is in the log, not in the ledger"
    new = NewFinding(ENTRY_FORGOTTEN, entry.account, partition, "entry", subject, detail)
    if await in_transaction(pool, lambda connection: record(connection, new)) is not None:
        done.findings += 1
