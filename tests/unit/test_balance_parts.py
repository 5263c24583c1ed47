"""The balance store's pure parts: packing, keys, the entries' interpreter, errors, accepted servers."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from balance_harness import PARTITION, charge, hold, opened, posted
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from billing.balance.client import UnsupportedServer, check_server
from billing.balance.codec import BadOperation, pack_entries, pack_usage
from billing.balance.entries import EntriesInterpreter, Malformed
from billing.balance.errors import answer_for
from billing.balance.keys import KeySpace, split_session_key
from billing.balance.library import FUNCTION_VERSION, LIBRARY, source
from billing.balance.records import AccountRecord, HoldRecord
from billing.stream.record import StoredRecord
from billing.stream.sink import ReadOnly, Unavailable, Uninitialised
from billing.usage.ops import session_key
from billing.usage.partitioner import home_partition
from schemas.ledger import LedgerEntry, encode_entry


def test_keys_of_a_partition_share_one_hash_tag() -> None:
    keys = KeySpace("ns", 8).all(3, "7")
    assert len(set(keys)) == 13
    assert {key.split("{")[1].split("}")[0] for key in keys} == {"p3"}
    assert keys[:3] == ["ns:{p3}:meta", "ns:{p3}:7:pos", "ns:{p3}:7:acct"]


def test_session_keys_keep_kinds_apart() -> None:
    kinds = ("call", "message", "item")
    assert [split_session_key(session_key(kind, "a.1", "s:2")) for kind in kinds] == [
        (kind, "a.1", "s:2") for kind in kinds
    ]


@pytest.mark.parametrize("below", [None, 0, -5, 2**53 - 1])
def test_records_come_back_as_they_were(below: int | None) -> None:
    record = AccountRecord("USD", -(2**53) + 1, 2**53 - 1, 0, 0, below, 0, 1, -1, "suspended")
    assert AccountRecord.unpack(record.pack()) == record
    held = HoldRecord(600, 60, 1_700_000_000_000)
    assert HoldRecord.unpack(held.pack()) == held


@pytest.mark.parametrize("wrong", [1.5, -1.0, 2.0**53, float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_hold_that_the_functions_cannot_read_is_none(wrong: float, at: int) -> None:
    numbers = [600.0, 60.0, 1_700_000_000_000.0]
    assert HoldRecord.read(struct.pack("<3d", *numbers)) == HoldRecord(*map(int, numbers))
    numbers[at] = wrong
    assert HoldRecord.read(struct.pack("<3d", *numbers)) is None
    assert HoldRecord.read(b"short") is None


def test_the_library_names_itself_once() -> None:
    text = source()
    assert text.startswith(f"#!lua name={LIBRARY}\nlocal LIBRARY, VERSION = '{LIBRARY}', '{FUNCTION_VERSION}'\n")
    assert text.count("#!lua") == 1
    assert text.index("local function write(") < text.index("register('usage'")


@pytest.mark.parametrize("wrong", [-1, 2**53, 1.0, 1.5, float("nan"), True, "1", None])
def test_s13_packing_refuses_what_is_not_a_whole_number(wrong: Any) -> None:
    with pytest.raises(BadOperation):
        pack_usage([charge(0, "a1", "s1", wrong)])
    with pytest.raises(BadOperation):
        pack_usage([hold(0, "a1", "s1", 1, elapsed=wrong)])


@pytest.mark.parametrize("wrong", [-(2**53), 2**53, 1.0, float("nan"), None])
def test_s13_packing_refuses_entries_out_of_bounds(wrong: Any) -> None:
    with pytest.raises(BadOperation):
        pack_entries([posted("a1", 2, wrong)])


def test_an_operation_of_the_other_topic_is_refused() -> None:
    with pytest.raises(BadOperation):
        pack_usage([opened("a1")])
    with pytest.raises(BadOperation):
        pack_entries([charge(0, "a1", "s1", 1)])


def _record(entry: LedgerEntry, offset: int = 0, **changes: Any) -> StoredRecord:
    fields: dict[str, Any] = {"key": entry.account.encode(), "value": encode_entry(entry, 0), **changes}
    return StoredRecord("ledger.entries", PARTITION, offset, 0, **fields)


def test_entries_are_interpreted_one_for_one() -> None:
    made = EntriesInterpreter().interpret([_record(opened("a1")), _record(posted("a1", 2, -5), 1)])
    assert (list(made.ops), made.taken) == ([opened("a1"), posted("a1", 2, -5)], 2)


@pytest.mark.parametrize(
    "changes",
    [{"value": b"{}"}, {"value": None}, {"key": b"a2"}, {"key": None}],
    ids=["not an entry", "no value", "another key", "no key"],
)
def test_a_malformed_entry_stands_alone(changes: dict[str, Any]) -> None:
    good, bad = _record(opened("a1")), _record(posted("a1", 2, 5), 1, **changes)
    interpreter = EntriesInterpreter()
    assert interpreter.interpret([good, bad, good]).taken == 1
    made = interpreter.interpret([bad, good])
    assert made.taken == 1
    assert isinstance(made.ops[0], Malformed)


def test_s16_entries_of_accounts_that_live_elsewhere_now_mean_nothing() -> None:
    home = home_partition("a1", 1000)
    away = _record(posted("a1", 2, 5))._replace(partition=(home + 1) % 1000)
    made = EntriesInterpreter(1000).interpret([away, _record(posted("a1", 3, 5), 1)._replace(partition=home)])
    assert (list(made.ops), made.taken) == ([posted("a1", 3, 5)], 2)
    bad = _record(posted("a1", 3, 5), 1, value=b"{}")
    assert EntriesInterpreter(1000).interpret([away, bad]).taken == 1


def test_an_opening_entry_belongs_to_its_home_partition() -> None:
    record = _record(opened("a1"))._replace(partition=PARTITION + 1)
    assert isinstance(EntriesInterpreter().interpret([record]).ops[0], Malformed)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ReadOnlyError("You can't write against a read only replica."), ReadOnly),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), ReadOnly),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), ReadOnly),
        (ResponseError("MISCONF Errors writing to the AOF file"), ReadOnly),
        (ResponseError("Function not found"), Uninitialised),
        (BusyLoadingError("Redis is loading the dataset in memory"), Unavailable),
        (MasterDownError("Link with MASTER is down"), Unavailable),
        (TryAgainError("Multiple keys request during rehashing of slot"), Unavailable),
        (ClusterDownError("The cluster is down"), Unavailable),
        (MaxConnectionsError("Too many connections"), Unavailable),
        (RedisConnectionError("refused"), Unavailable),
        (RedisTimeoutError("Timeout reading from socket"), Unavailable),
        (TimeoutError(), Unavailable),
        (OSError("broken pipe"), Unavailable),
        (ResponseError("user_function:12: attempt to index a nil value"), Unavailable),
    ],
)
def test_each_error_has_its_answer(error: Exception, kind: type) -> None:
    assert isinstance(answer_for(error), kind)


class _Info:
    def __init__(self, **info: str) -> None:
        self._info = info

    async def info(self, section: str) -> dict[str, str]:
        return self._info


@pytest.mark.parametrize("version", ["7.2.0", "7.4.1", "8.0.3", "10.0.0"])
async def test_newer_servers_are_accepted(version: str) -> None:
    assert await check_server(_Info(redis_version=version)) == f"redis {version}"  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["2.6.14", "6.2.7", "7.0.15", "7", "unknown"])
async def test_an_older_redis_is_refused_by_name(version: str) -> None:
    with pytest.raises(UnsupportedServer, match=f"Redis {version}"):
        await check_server(_Info(redis_version=version))  # type: ignore[arg-type]


async def test_any_valkey_is_accepted() -> None:
    info = _Info(redis_version="7.2.4", server_name="valkey", valkey_version="8.0.1")
    assert await check_server(info) == "valkey 8.0.1"  # type: ignore[arg-type]
