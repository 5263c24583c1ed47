"""The runtime role may add to the books and change nothing of them; the database says so, not our code (R6)."""

from __future__ import annotations

import asyncpg
import pytest
from ledger_support import AUTHOR, Ledger, charge, dead_letter, names

from billing.devstack.services import with_user
from billing.ledger.booking import adjust, credit
from billing.ledger.database import connect
from billing.ledger.migrate import Migrated, MigrationRefused, migrate
from billing.ledger.roles import GRANTS, OWNERS_ALONE, Granted, privileges
from billing.reconcile.restoring import begin_timeline
from billing.settings import Settings
from billing.stream.sink import Refused

BOOKED = ("journal", "postings", "usage", "dead_letters", "tariffs", "tariff_rates", "plan_assignments", "incarnations")


@pytest.fixture
async def books(ledger: Ledger) -> Ledger:
    """Everything in it was written by the runtime role."""
    one, two = names(0, 2)
    await ledger.open(one, two, credit_micros=5_000_000)
    await credit(ledger.runtime, one, 1_000_000, "thanks", author=AUTHOR)
    await adjust(ledger.runtime, two, -1_000_000, "sorry", author=AUTHOR)
    await ledger.settle(await ledger.claim(), 0, [charge(0, one, "a"), charge(1, two, "b"), dead_letter(2)])
    await ledger.verified()
    return ledger


async def test_r6_the_runtime_role_has_no_update_or_delete_on_what_was_booked(books: Ledger) -> None:
    for table in (*BOOKED, "findings", "usage_0"):
        for statement in (f"update {table} set ctid = ctid", f"delete from {table}", f"truncate {table}"):
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError)):
                await books.runtime.execute(statement)
    granted = await books.pool.fetch(
        "select table_name, privilege_type from information_schema.role_table_grants"
        " where grantee = $1 and table_schema = 'public'",
        books.settings.namespace,
    )
    assert granted
    writes = {(row["table_name"], row["privilege_type"]) for row in granted}
    assert not {(t, p) for t, p in writes if t in BOOKED and p not in ("SELECT", "INSERT")}
    assert not {p for _, p in writes if p in ("TRUNCATE", "TRIGGER", "REFERENCES")}


async def test_r6_balances_move_by_postings_only_whoever_writes(books: Ledger) -> None:
    change = "update balances set {} = coalesce({}, 0) + 1"
    for column in ("credit_micros", "used_micros", "last_charged_offset"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await books.runtime.execute(change.format(column, column))
        with pytest.raises(asyncpg.RestrictViolationError, match="by postings only"):
            await books.pool.execute(change.format(column, column))
    for statement in ("delete from balances", "truncate balances"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await books.pool.execute(statement)
    with pytest.raises(asyncpg.CheckViolationError, match="begins empty"):
        await books.pool.execute(
            "with a as (insert into accounts (id, currency, plan, home_partition, usage_position, credit_limit_micros)"
            " values ('new', 'USD', 'basic', 0, 0, 0) returning id)"
            " insert into balances (account_id, currency, credit_micros, ledger_seq) select id, 'USD', 5, 1 from a"
        )


async def test_r6_a_posting_moves_its_balance_in_the_same_statement(books: Ledger) -> None:
    (one,) = names(0, 1)
    async with books.runtime.acquire() as connection, connection.transaction():
        before = await connection.fetchval("select credit_micros from balances where account_id = $1", one)
        entry = await connection.fetchval(
            "insert into journal (kind, origin, author, reason, account_id, ledger_seq)"
            " values ('entry', 'credit', 'x', 'y', $1, 99) returning id",
            one,
        )
        await connection.execute(
            "insert into postings (journal_id, ledger_account, account_id, currency, amount_micros)"
            " values ($1, 'customer', $2, 'USD', 70), ($1, 'suspense', null, 'USD', -70)",
            *(entry, one),
        )
        after = await connection.fetchval("select credit_micros from balances where account_id = $1", one)
        assert after == before + 70
        with pytest.raises(asyncpg.CheckViolationError, match="the ledger has USD"):
            await connection.execute(
                "insert into postings (journal_id, ledger_account, account_id, currency, amount_micros)"
                " values ($1, 'customer', $2, 'EUR', 70), ($1, 'suspense', null, 'EUR', -70)",
                *(entry, one),
            )


async def test_r6_the_runtime_role_cannot_step_round_the_triggers(books: Ledger) -> None:
    for statement in (
        "set session_replication_role = replica",
        "alter table usage disable trigger all",
        "drop trigger zero_sum on postings",
        "create or replace function refuse_change() returns trigger language plpgsql as $$ begin return null; end $$",
        "set role postgres",
    ):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError)):
            await books.runtime.execute(statement)


@pytest.mark.parametrize("column", ["id", "currency", "home_partition", "usage_position", "opened_at"])
async def test_r6_the_runtime_role_changes_only_the_terms_of_an_account(books: Ledger, column: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await books.runtime.execute(f"update accounts set {column} = {column}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await books.runtime.execute("update ledger_meta set partitions = partitions")
    await books.runtime.execute("update accounts set status = status, plan = plan")


AT = "where topic = 'usage.events' and partition = 0"
LOCKED = "select set_config('billing.locked_position', 'usage.events-0', true); "
LIFTED = f"update positions set halted = 'x' {AT}; update positions set halted = null, next_offset = 99 {AT}"


BY_HAND = [
    (f"update positions set next_offset = 2 {AT}", "never goes back"),
    (f"update positions set next_offset = 99 {AT}", "in the transaction that has locked it"),
    (f"update positions set fingerprint = '2:0123456789abcdef' {AT}", "in the transaction that has locked it"),
    (f"update positions set epoch = epoch + 9 {AT}", "by the next epoch"),
    (f"update positions set nonce = 'mine' {AT}", "by the next epoch"),
    (f"update positions set epoch = epoch + 1, next_offset = 99 {AT}", "a claim moves nothing"),
    (f"{LOCKED}update positions set next_offset = 99, fingerprint = '1:0123456789abcdef' {AT}", "of no record"),
    (f"{LOCKED}update positions set next_offset = 99, fingerprint = '' {AT}", "of no record"),
    (f"update positions set halted = 'x', next_offset = 99 {AT}", "it is halted"),
    (LIFTED, "only with a finding"),
]


async def test_r8_a_position_moves_as_the_sinks_move_it_whoever_writes(books: Ledger) -> None:
    for statement, why in BY_HAND:
        for pool in (books.runtime, books.pool):
            with pytest.raises(asyncpg.RestrictViolationError, match=why):
                await pool.execute(statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await books.runtime.execute("update positions set halted_at = now()")
    assert await books.pool.fetchval(f"select next_offset from positions {AT}") == 3


async def test_s28_only_the_owner_begins_a_timeline(books: Ledger) -> None:
    who = {"author": AUTHOR, "reason": "restored"}
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await begin_timeline(books.runtime, **who)
    done = await begin_timeline(books.pool, **who)
    assert done.timeline != done.before
    assert isinstance(await books.sink.claim(0, "tests"), Refused)


async def test_r6_a_temporary_table_deceives_no_trigger(books: Ledger) -> None:
    async with books.runtime.acquire() as connection:
        await connection.execute(
            "create temp table journal (id bigint, booked_at timestamptz); insert into journal values (1, now())"
        )
        with pytest.raises(asyncpg.CheckViolationError, match="never added to"):
            await connection.execute(
                "insert into postings (journal_id, ledger_account, currency, amount_micros)"
                " values (1, 'suspense', 'USD', 5), (1, 'goodwill', 'USD', -5)"
            )
        await connection.execute("drop table pg_temp.journal")


async def test_every_table_is_append_only_or_has_its_grant(ledger: Ledger) -> None:
    tables = await ledger.pool.fetch(
        "select c.relname as name, exists (select from pg_trigger t where t.tgrelid = c.oid"
        " and t.tgname in ('append_only')) as append_only from pg_class c"
        " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
    )
    read_only = {row["name"] for row in tables if privileges(row["name"], row["append_only"]) == "select"}
    owners = {"schema_migrations", "ledger_meta", "recharge_transitions"}
    assert read_only <= owners | OWNERS_ALONE
    assert set(GRANTS) <= {row["name"] for row in tables}


async def test_migrate_makes_a_role_and_one_without_the_right_to_says_so(settings: Settings) -> None:
    made = with_user(settings.owner_dsn, f"{settings.namespace}_made", "secret")
    owner = await connect(settings.owner_dsn)
    try:
        first = await migrate(settings.owner_dsn, 8, made)
        assert isinstance(first, Migrated)
        assert first.granted == Granted(f"{settings.namespace}_made", created=True, restrained=True)
        again = await migrate(settings.owner_dsn, 8, made)
        assert isinstance(again, Migrated)
        assert again.granted == Granted(f"{settings.namespace}_made", created=False, restrained=True)
        runtime = await connect(made)
        assert await runtime.fetchval("select count(*) from journal") == 0
        await runtime.close(timeout=5)
        itself = await migrate(settings.owner_dsn, 8, settings.owner_dsn)
        assert isinstance(itself, Migrated)
        assert itself.granted is not None
        assert not itself.granted.restrained
        await owner.execute(f"grant all on schema public to {settings.namespace}")
        await owner.execute(f"grant all on all tables in schema public to {settings.namespace}")
        answer = await migrate(settings.postgres_dsn, 8, with_user(settings.owner_dsn, "nobody_knows", "x"))
        assert isinstance(answer, MigrationRefused)
        assert "there is no role nobody_knows" in answer.reason
    finally:
        await owner.execute(f"drop owned by {settings.namespace}_made; drop role {settings.namespace}_made")
        await owner.close(timeout=5)
