"""Migrations: once, in order, all or nothing; and every query fits the schema they make."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest
from ledger_support import Ledger, charge, dead_letter, names

from billing.ledger import migrate as migrate_module
from billing.ledger.database import connect, open_pool
from billing.ledger.migrate import Migrated, MigrationFailed, MigrationRefused, migrate, migrations
from billing.ledger.opening import import_accounts
from billing.ledger.queries import all_queries, query
from billing.ledger.snapshots import positions
from billing.ledger.terms import NewAccount
from billing.settings import Settings


async def test_ten_at_once_migrate_once(settings: Settings) -> None:
    results = await asyncio.gather(*(migrate(settings.owner_dsn, 8) for _ in range(10)))
    applied = [result.applied for result in results if isinstance(result, Migrated)]
    assert sorted(map(len, applied)) == [0] * 9 + [len(migrations())]
    assert len({result.timeline for result in results if isinstance(result, Migrated)}) == 1
    pool = await open_pool(settings.owner_dsn)
    assert sorted(await positions(pool)) == list(range(8))
    await pool.close()


async def test_s16_another_partition_count_is_refused(settings: Settings) -> None:
    await migrate(settings.owner_dsn, 8)
    assert isinstance(await migrate(settings.owner_dsn, 12), MigrationRefused)


async def test_a_changed_migration_and_a_newer_ledger_are_refused(settings: Settings) -> None:
    await migrate(settings.owner_dsn, 8)
    connection = await connect(settings.owner_dsn)
    await connection.execute("update schema_migrations set checksum = 'x' where version = 2")
    answer = await migrate(settings.owner_dsn, 8)
    assert answer == MigrationRefused("0002_catalogue was changed after it had been applied")
    await connection.execute("insert into schema_migrations values (999, 'later', 'x')")
    assert isinstance(await migrate(settings.owner_dsn, 8), MigrationRefused)
    await connection.close(timeout=5)


async def test_a_failing_statement_is_named_and_nothing_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations()
    broken = replace(known[-1], version=99, name="0099_broken", text="create table fine (id int);\nselect nonsense;\n")
    monkeypatch.setattr(migrate_module, "migrations", lambda: (*known, broken))
    with pytest.raises(MigrationFailed, match="0099_broken: 'select nonsense;'"):
        await migrate(settings.owner_dsn, 8)
    connection = await connect(settings.owner_dsn)
    assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0
    await connection.close(timeout=5)


async def test_what_must_wait_for_the_deployment_waits(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    known = migrations()
    later = replace(known[-1], version=98, name="0098_later.post", text="create table later (id int);\n", post=True)
    first = await migrate(settings.owner_dsn, 8)
    assert isinstance(first, Migrated)
    assert len(first.applied) == len(known)  # a fresh ledger has no earlier build
    monkeypatch.setattr(migrate_module, "migrations", lambda: (*known, later))
    waiting = await migrate(settings.owner_dsn, 8)
    assert isinstance(waiting, Migrated)
    assert (waiting.applied, waiting.waiting) == ((), ("0098_later.post",))
    assert waiting.version >= migrate_module.newest_version()
    done = await migrate(settings.owner_dsn, 8, post=True)
    assert isinstance(done, Migrated)
    assert (done.applied, done.waiting, done.version) == (("0098_later.post",), (), 98)


async def test_a_migration_while_a_consumer_settles_stops_neither(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = names(0, 50)
    await ledger.open(*accounts)
    owner = await ledger.claim()
    done = asyncio.Event()

    async def settle() -> int:
        end = 0
        while not done.is_set() or end < 500:
            ops = [charge(end + i, accounts[(end + i) % 50], f"s{end + i}") for i in range(50)]
            end = await ledger.settle(owner, end, ops)
        return end

    settling = asyncio.create_task(settle())
    known = migrations()
    text = (
        "alter table usage add column extra text;\nalter table postings add column extra text;\n"
        "alter table balances add column extra text;\nalter table positions add column extra text;\n"
    )
    heavy = replace(known[-1], version=98, name="0098_heavy", text=text, post=False)
    monkeypatch.setattr(migrate_module, "migrations", lambda: (*known, heavy))
    assert isinstance(await migrate(ledger.settings.owner_dsn, 8), Migrated)
    done.set()
    settled = await settling
    assert await ledger.count("usage") == settled >= 500
    await ledger.verified()


async def test_every_query_fits_the_schema(ledger: Ledger) -> None:
    async with ledger.pool.acquire() as connection:
        several = (
            *("sink.look_up", "accounts.create_incoming", "partitions.create_moving"),
            *("rerate.prepare_todo", "rerate.prepare_batch"),
        )
        for name in several:
            await connection.execute(query(name))
        for name, text in all_queries().items():
            if name in several:
                continue
            try:
                await connection.prepare(text)
            except Exception as error:
                raise AssertionError(f"{name}: {error}") from error


LOOK_UPS = {
    "snapshots.settled": ("'{one}'", "5000", "0"),
    "snapshots.used_below": ("'{one}'", "5000"),
    "reads.usage": ("'{one}'", "5000", "1", "5000", "10"),
    "dead_letters.page": ("'usage.events'", "0", "10", "10", *["null"] * 8),
    "accounts.show": ("'{one}'",),
    "accounts.page": ("'{one}'", "10"),
    "accounts.lock": ("'{one}'",),
    "booking.by_key": ("'key'",),
    "relay.entries": ("0", "100"),
    "relay.delete_entries": ("'{{1,2,3}}'",),
    "tariffs.newest": ("'basic'",),
}


async def test_look_ups_go_through_an_index(ledger: Ledger) -> None:
    """A look-up that reads a whole large table would go unnoticed on a small one."""
    rows = [NewAccount(f"a{i:05d}", "USD", "basic") for i in range(5000)]
    await import_accounts(ledger.pool, rows, author="tests")
    accounts = names(0, 500, "b")
    await import_accounts(ledger.pool, [NewAccount(a, "USD", "basic") for a in accounts], author="tests")
    ops = [charge(i, accounts[i % 500], f"s{i}") for i in range(4000)]
    end = await ledger.settle(await ledger.claim(), 0, [*ops, *(dead_letter(4000 + i) for i in range(1000))])
    assert end == 5000
    await ledger.pool.execute("analyze")
    for name, arguments in LOOK_UPS.items():
        text = query(name)
        for number in range(len(arguments), 0, -1):
            text = text.replace(f"${number}", arguments[number - 1].format(one=accounts[0]))
        plan = "\n".join(row[0] for row in await ledger.pool.fetch(f"explain {text}"))
        for table in ("usage_", "accounts", "balances", "journal", "outbox", "dead_letters", "postings"):
            assert f"Seq Scan on {table}" not in plan, f"{name}:\n{plan}"


async def test_a_settlement_costs_what_its_batch_costs_even_where_tables_look_small(ledger: Ledger) -> None:
    """Plans are cached per connection, possibly since the tables were empty: they must be look-ups from the start."""
    async with ledger.pool.acquire() as connection, connection.transaction():
        await connection.execute(query("sink.look_up"))
        for name in ("sink.settled_before", "sink.strange_account"):
            text = re.sub(r"[$](\d)(::text\[\])", r"'{a}'\2", query(name))
            plan = "\n".join(row[0] for row in await connection.fetch(f"explain {text}"))
            assert not re.search(r"Seq Scan|Hash Join|Merge Join|Materialize", plan), f"{name}:\n{plan}"
