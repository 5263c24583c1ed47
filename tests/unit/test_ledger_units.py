"""The ledger's pure parts: statements, queries, terms, partitioning, what an exception means."""

from __future__ import annotations

import asyncpg
import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2

from billing.ledger.migrate import migrations, statements
from billing.ledger.queries import all_queries
from billing.ledger.terms import Changes, Invalid, NewAccount, problem_of, problem_of_changes
from billing.ledger.trouble import Trouble, trouble_of
from billing.usage.partitioner import home_partition, murmur2


def test_statements_end_at_a_semicolon_outside_bodies() -> None:
    text = "-- a; comment\nselect 1;\ncreate function f() as $$\nbegin;\nend $$;\n\n-- the end\n"
    assert list(statements(text)) == ["-- a; comment\nselect 1;", "create function f() as $$\nbegin;\nend $$;"]
    with pytest.raises(ValueError, match="without a semicolon"):
        list(statements("select 1"))


def test_migrations_are_numbered_each_once() -> None:
    versions = [migration.version for migration in migrations()]
    assert versions == sorted(set(versions))
    assert versions[:10] == list(range(1, 11))


def test_every_query_has_a_name_and_a_description() -> None:
    assert len(all_queries()) > 50
    assert all(text.startswith("-- ") for text in all_queries().values())


def test_home_partitions_are_those_of_kafka() -> None:
    for number in range(300):
        account = "x" * (number % 9) + str(number) + "é"
        assert murmur2(account.encode()) == aiokafka_murmur2(account.encode()) & 0xFFFFFFFF
    # the vectors of Kafka's own test
    assert murmur2(b"21") == -973932308 & 0xFFFFFFFF
    assert murmur2(b"a-little-bit-long-string") == -985981536 & 0xFFFFFFFF
    assert [home_partition(account, 8) for account in ("alice", "21", "foobar")] == [5, 4, 6]


GOOD = NewAccount("alice", "USD", "basic")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "a b"),
        ("id", "a\n"),
        ("id", "x" * 65),
        ("id", "ä"),
        ("currency", "usd"),
        ("currency", "XYZ"),
        ("plan", "a/b"),
        ("credit_micros", -1),
        ("credit_micros", 2**53),
        ("credit_micros", 1.0),
        ("credit_micros", True),
        ("credit_micros", float("nan")),
        ("credit_limit_micros", -1),
        ("recharge_below_micros", -(2**53)),
        ("recharge_by_micros", 0),
        ("daily_cap_micros", "5"),
        ("customer", ""),
        ("customer", "a\x00b"),
        ("payment_method", "4242 4242 4242 4242"),
        ("payment_method", "4242424242424242"),
    ],
)
def test_s13_terms_out_of_bounds_name_the_field(field: str, value: object) -> None:
    fields = {name: getattr(GOOD, name) for name in NewAccount.__dataclass_fields__} | {field: value}
    found = problem_of(NewAccount(**fields))
    assert isinstance(found, Invalid)
    assert found.field == field


def test_good_terms_have_no_problem() -> None:
    assert problem_of(GOOD) is None
    assert problem_of_changes("alice", Changes(recharge_below_micros=None, customer="cus_1", status="closed")) is None
    found = problem_of_changes("alice", Changes(status="gone"))  # type: ignore[arg-type]  # what a caller may pass
    assert isinstance(found, Invalid)


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (asyncpg.DeadlockDetectedError("x"), Trouble.RETRY),
        (asyncpg.SerializationError("x"), Trouble.RETRY),
        (asyncpg.ReadOnlySQLTransactionError("x"), Trouble.READ_ONLY),
        (asyncpg.DiskFullError("x"), Trouble.READ_ONLY),
        (asyncpg.AdminShutdownError("x"), Trouble.AWAY),
        (asyncpg.CannotConnectNowError("x"), Trouble.AWAY),
        (asyncpg.TooManyConnectionsError("x"), Trouble.AWAY),
        (asyncpg.QueryCanceledError("x"), Trouble.AWAY),
        (asyncpg.ConnectionDoesNotExistError("x"), Trouble.AWAY),
        (asyncpg.InterfaceError("connection is closed"), Trouble.AWAY),
        (TimeoutError(), Trouble.AWAY),
        (ConnectionRefusedError(), Trouble.AWAY),
        (asyncpg.UndefinedTableError("x"), Trouble.NOT_MIGRATED),
        (asyncpg.NumericValueOutOfRangeError("x"), Trouble.OVERFLOW),
        (asyncpg.CheckViolationError("x"), Trouble.BUG),
        (asyncpg.DataError("x"), Trouble.BUG),
        (ValueError("x"), Trouble.BUG),
    ],
)
def test_what_an_exception_means(error: Exception, trouble: Trouble) -> None:
    assert trouble_of(error) is trouble
