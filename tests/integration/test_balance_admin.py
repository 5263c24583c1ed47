"""Setting up, rebuilding, reading and losing the balance store, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from balance_harness import (
    PARTITION,
    START_MS,
    TOPICS,
    Store,
    batch,
    charge,
    entries,
    hold,
    opened,
    posted,
)

from billing.balance import admin
from billing.balance.balances import Known, NoSuchAccount, PartitionView, Unknown
from billing.balance.calls import Functions
from billing.balance.keys import KeySpace
from billing.balance.reader import BalanceReader
from billing.balance.records import AccountRecord, HoldRecord
from billing.balance.store import RedisSink
from billing.stream.record import Position
from billing.stream.sink import Applied, Claimed, Fenced, Owner, Refused, Tended, Uninitialised

OWNER = Owner(1, "n")
ORIGIN = admin.Positions(Position(0, ""), Position(0, ""), START_MS)
RECORD = AccountRecord("USD", 9_000_000, 1_000, 600, 0, None, 0, 4, 17, "open")


@pytest.fixture
async def store(services: Any) -> AsyncIterator[Store]:
    """An initialised store with two accounts, owned by "n"."""
    async with Store.open(services.redis_url) as store:
        await store.start()
        await store.claimed()
        made = entries(OWNER, 0, [opened("a1"), opened("a2", credit=5)])
        assert await store.sink.apply(made) == Applied(2)
        yield store


async def scan(store: Store) -> dict[str, Known | Unknown]:
    return {account: found async for account, found in store.reader.scan_partition(PARTITION)}


async def test_initialise_refuses_what_is_there(store: Store) -> None:
    answer = await admin.initialise(store.functions, PARTITION, 9, "t2", ORIGIN)
    assert answer == admin.Exists("1", "t1", "8", "21600000", "ready")
    assert isinstance(await store.reader.read_balance("a1"), Known)


async def test_r1_an_empty_store_is_unknown_not_zero(store: Store) -> None:
    await store.wipe()
    assert await store.reader.read_balance("a1") == Unknown("empty")
    assert await store.reader.read_holds("a1") == Unknown("empty")
    assert await store.reader.read_partition(PARTITION) == Unknown("empty")
    assert await scan(store) == {"": Unknown("empty")}
    assert await store.sink.claim(PARTITION, "n") == Uninitialised("empty")
    assert await store.sink.apply(batch(OWNER, 0, 1, [])) == Uninitialised("empty")


@pytest.mark.parametrize("lost", ["pos", "acct", "sess", "lease", "done:0", "done:1", "done:2"])
async def test_r1_a_lost_key_is_noticed(store: Store, lost: str) -> None:
    for number in range(3):  # fill every dedupe generation
        time_ms = START_MS + number * store.functions.keys.generation_ms
        ops = [hold(2 * number, "a1", f"h{number}", 6), charge(2 * number + 1, "a1", f"s{number}", 5)]
        made = batch(OWNER, 2 * number, 2 * number + 2, ops, log_time_ms=time_ms)
        assert await store.sink.apply(made) == Applied(2 * number + 2)
    key = f"{store.functions.keys.prefix}:{{p{PARTITION}}}:1:{lost}"
    assert await store.client.delete(key) == 1
    assert await store.reader.read_balance("a1") == Unknown("lost")
    assert await store.reader.read_balance("nobody") == Unknown("lost")
    assert await store.sink.apply(batch(OWNER, 6, 7, [])) == Uninitialised("lost")
    assert await store.sink.claim(PARTITION, "n") == Uninitialised("lost")


async def test_s14_another_version_partition_count_or_generation_refuses(store: Store) -> None:
    functions = store.functions
    newer = Functions(store.client, functions.keys, library=functions.library, version="another")
    more = Functions(store.client, KeySpace(functions.keys.prefix, 16), library=functions.library)
    longer = Functions(store.client, KeySpace(functions.keys.prefix, 8, 1_000), library=functions.library)
    for other in (newer, more, longer):
        sink = RedisSink(other, TOPICS)
        assert isinstance(await sink.claim(PARTITION, "x"), Refused)
        assert isinstance(await sink.apply(batch(OWNER, 0, 1, [])), Refused)
        assert isinstance(await sink.tend(OWNER, PARTITION, at_end=True), Refused)
        answer = await BalanceReader(other, TOPICS, lambda _: PARTITION).read_balance("a1")
        assert isinstance(answer, Unknown)
        assert answer.reason == "version"


async def test_a_rebuild_fences_then_replaces_and_removes_the_old_keys(store: Store) -> None:
    assert await store.sink.apply(batch(OWNER, 0, 5, [charge(0, "a1", "old", 7)])) == Applied(5)
    rebuild = await admin.begin_rebuild(store.functions, PARTITION, 2)
    assert isinstance(rebuild, admin.Rebuild)
    assert await store.sink.apply(batch(OWNER, 5, 6, [])) == Uninitialised("rebuilding")
    assert await store.sink.claim(PARTITION, "x") == Uninitialised("rebuilding")
    assert await store.reader.read_balance("a1") == Unknown("rebuilding")
    records = {f"b{i}": RECORD for i in range(2_000)}
    assert await admin.write_accounts(store.functions, rebuild, records) == admin.Done()
    holds = {("call", "b7", "open"): HoldRecord(600, 60, START_MS + 5)}
    assert await admin.write_holds(store.functions, rebuild, holds) == admin.Done()  # type: ignore[arg-type]
    done = [("call", "b7", "settled")]
    assert await admin.write_settled(store.functions, rebuild, done, START_MS) == admin.Done()  # type: ignore[arg-type]
    positions = admin.Positions(Position(5, "4:x"), Position(2, "1:y"), START_MS)
    assert await admin.finish_rebuild(store.functions, rebuild, "t2", positions) == admin.Done()
    assert await admin.finish_rebuild(store.functions, rebuild, "t2", positions) == admin.Done()  # reply lost
    old = store.functions.keys.data(PARTITION, "1")
    assert await store.client.exists(*old) == 0
    assert await store.sink.apply(batch(OWNER, 5, 6, [])) == Uninitialised("incarnation")
    claimed = await store.sink.claim(PARTITION, "x")
    assert isinstance(claimed, Claimed)
    assert claimed.positions == {TOPICS.usage: positions.usage, TOPICS.entries: positions.entries}
    assert await store.sink.apply(batch(OWNER, 5, 6, [])) == Fenced()
    again = batch(claimed.owner, 5, 6, [charge(5, "b7", "settled", 500)])
    assert await store.sink.apply(again) == Applied(6)
    known = await store.reader.read_balance("b7")
    assert isinstance(known, Known)
    assert (known.used_micros, known.held_micros, known.incarnation) == (1_000, 600, "2")
    assert len(await scan(store)) == 2_000
    store._incarnations = iter(range(2, 3))  # type: ignore[assignment]  # let the fixture remove incarnation 2


async def test_r1_r10_a_rebuild_leaves_an_account_unknown_that_the_store_cannot_hold_exactly(store: Store) -> None:
    rebuild = await admin.begin_rebuild(store.functions, PARTITION, 2)
    assert isinstance(rebuild, admin.Rebuild)
    records = {"big": msgspec.structs.replace(RECORD, used=2**53 + 1), "small": RECORD}
    assert await admin.write_accounts(store.functions, rebuild, records, 5) == admin.Done()
    positions = admin.Positions(Position(5, "4:x"), Position(2, "1:y"), START_MS)
    assert await admin.finish_rebuild(store.functions, rebuild, "t2", positions) == admin.Done()
    assert isinstance(await store.reader.read_balance("small"), Known)
    assert await store.reader.read_balance("big") == Unknown("overflow")
    store._incarnations = iter(range(2, 3))  # type: ignore[assignment]  # let the fixture remove incarnation 2


async def test_a_second_rebuild_fences_the_first_and_removes_what_it_left(store: Store) -> None:
    first = await admin.begin_rebuild(store.functions, PARTITION, 2)
    assert isinstance(first, admin.Rebuild)
    assert await admin.write_accounts(store.functions, first, {"b1": RECORD}) == admin.Done()
    assert await admin.begin_rebuild(store.functions, PARTITION, 2) == admin.NotNew(2)
    second = await admin.begin_rebuild(store.functions, PARTITION, 3)
    assert isinstance(second, admin.Rebuild)
    assert await store.client.exists(*store.functions.keys.data(PARTITION, "2")) == 0
    assert await admin.write_accounts(store.functions, first, {"b1": RECORD}) == Fenced()
    assert await admin.finish_rebuild(store.functions, first, "t1", ORIGIN) == Fenced()
    assert await admin.finish_rebuild(store.functions, second, "t1", ORIGIN) == admin.Done()


async def test_a_rebuild_starts_from_a_store_that_lost_everything(store: Store) -> None:
    await store.wipe()
    rebuild = await admin.begin_rebuild(store.functions, PARTITION, 1)
    assert isinstance(rebuild, admin.Rebuild)
    assert await store.reader.read_balance("a1") == Unknown("rebuilding")
    assert await admin.finish_rebuild(store.functions, rebuild, "t1", ORIGIN) == admin.Done()
    assert await store.reader.read_balance("a1") == NoSuchAccount()


async def test_readers_refuse_a_store_that_the_ledger_does_not_expect(store: Store) -> None:
    def reader(**expected: Any) -> BalanceReader:
        return BalanceReader(store.functions, TOPICS, lambda _: PARTITION, **expected)

    assert isinstance(await reader(incarnation=1, timeline="t1").read_balance("a1"), Known)
    wrong = await reader(incarnation=2).read_balance("a1")
    assert isinstance(wrong, Unknown)
    assert wrong.reason == "incarnation"
    wrong = await reader(timeline="t2").read_balance("nobody")
    assert isinstance(wrong, Unknown)
    assert wrong.reason == "timeline"


async def test_a_scan_shows_known_and_unknown_accounts(store: Store) -> None:
    made = entries(OWNER, 2, [posted("a2", 3, 1), posted("ghost", 2, 1)])
    assert await store.sink.apply(made) == Applied(4)
    found = await scan(store)
    assert found.pop("a1") == await store.reader.read_balance("a1")
    assert found == {"a2": Unknown("gap"), "ghost": Unknown("gap")}
    view = await store.reader.read_partition(PARTITION)
    assert isinstance(view, PartitionView)
    assert (view.accounts, view.unknown_accounts, view.open_holds) == (2, 2, 0)


async def test_a_halt_is_stored_and_read(store: Store) -> None:
    await store.sink.halt(OWNER, PARTITION, "fingerprint")
    assert await store.reader.read_balance("a1") == Unknown("halted", "fingerprint")
    rebuild = await admin.begin_rebuild(store.functions, PARTITION, 2)  # a rebuild ends a halt
    assert isinstance(rebuild, admin.Rebuild)
    assert await admin.finish_rebuild(store.functions, rebuild, "t1", ORIGIN) == admin.Done()
    assert isinstance(await store.sink.claim(PARTITION, "x"), Claimed)


async def test_many_leases_end_in_several_calls(store: Store) -> None:
    late = START_MS + 180_000
    ops = [hold(i, "a1", f"s{i}", 1) for i in range(450)]
    assert await store.sink.apply(batch(OWNER, 0, 450, ops, log_time_ms=late)) == Applied(450)
    assert await store.sink.tend(OWNER, PARTITION, at_end=True) == Tended(False)
    known = await store.reader.read_balance("a1")
    assert isinstance(known, Known)
    assert known.held_micros == 0


async def test_batches_beyond_the_chunk_size_are_applied_whole(store: Store) -> None:
    many = 2_500
    made = entries(OWNER, 2, [opened(f"c{i}") for i in range(many)])
    assert await store.sink.apply(made) == Applied(2 + many)
    ops: list[Any] = [charge(i, f"c{i}", "s", i) for i in range(many)]
    assert await store.sink.apply(batch(OWNER, 0, many, ops)) == Applied(many)
    found = await scan(store)
    used = [found[f"c{i}"].used_micros for i in range(many)]  # type: ignore[union-attr]
    assert used == list(range(many))
