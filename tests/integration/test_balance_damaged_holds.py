"""A hold that another hand overwrote: no partition stops, nothing is told that nobody knows, and what is held is right
again once the hold has gone."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from balance_harness import (
    PARTITION,
    START_MS,
    TOPICS,
    FixedLedger,
    FixedLog,
    Store,
    batch,
    charge,
    entries,
    hold,
    opened,
)

from billing.balance.balances import Known, Unknown
from billing.balance.mending import mend
from billing.balance.records import HoldRecord
from billing.balance.snapshot import AccountSnapshot
from billing.balance.store import RedisSink
from billing.stream.sink import Applied, Claimed, Owner, Tended
from billing.usage.ops import CALL_LEASE_MS

OWNER = Owner(1, "n")
END_MS = START_MS + CALL_LEASE_MS
SHORT = {"empty": b"", "short": b"junk", "long": bytes(25), "nan": b"\xff" * 24}
JUNK = SHORT | {str(amount): struct.pack("<ddd", amount, 0, END_MS) for amount in (1.5, -600.0, 1e300, 2.0**53)}
STRANGE = {
    f"{elapsed}-{end}": struct.pack("<ddd", 600, elapsed, end)
    for elapsed, end in ((-1, END_MS), (0.5, END_MS), (0, float("inf")))
}


@pytest.fixture
async def store(services: Any) -> AsyncIterator[Store]:
    """Account a1 has holds of 600 each for sessions s1 and s2, account a2 one of 5."""
    async with Store.open(services.redis_url) as store:
        await store.start()
        owner = await store.claimed()
        assert await store.sink.apply(entries(owner, 0, [opened("a1"), opened("a2")])) == Applied(2)
        holds = [hold(0, "a1", "s1", 600), hold(1, "a1", "s2", 600), hold(2, "a2", "s3", 5)]
        assert await store.sink.apply(batch(OWNER, 0, 3, holds, log_time_ms=START_MS)) == Applied(3)
        yield store


async def damage(store: Store, junk: bytes, session: str = "c/a1/s1") -> None:
    key = store.functions.keys.data(PARTITION, str(store.incarnation))[2]
    assert await store.client.hset(key, session, junk) == 0


async def held(store: Store, account: str = "a1") -> int:
    found = await store.reader.read_balance(account)
    assert isinstance(found, Known), found
    return found.held_micros


async def named(store: Store) -> list[set[str]]:
    return [accounts async for accounts in store.reader.unreadable_holds(PARTITION)]


@pytest.mark.parametrize("junk", (JUNK | STRANGE).values(), ids=(JUNK | STRANGE).keys())
async def test_r1_it_is_named_and_mended_and_nothing_else_is(store: Store, junk: bytes) -> None:
    assert (await named(store), await mend(store.functions, PARTITION, "a1")) == ([], "readable")
    await damage(store, junk)
    assert await named(store) == [{"a1"}]
    assert await mend(store.functions, PARTITION, "a2") == "readable"
    assert await mend(store.functions, PARTITION, "a1") == "mended"
    assert (await held(store), await held(store, "a2"), await named(store)) == (600, 5, [])
    holds = await store.reader.read_holds("a1")
    assert [found.session for found in holds] == ["s2"]  # type: ignore[union-attr]
    assert (await store.state())["torn"] == ""
    ended = [charge(3, "a1", "s1", 70), charge(4, "a1", "s2", 70)]
    assert await store.sink.apply(batch(OWNER, 3, 5, ended)) == Applied(5)
    assert await held(store) == 0


async def test_r1_an_account_that_it_exhausted_is_restored_by_mending(store: Store) -> None:
    taken = hold(3, "a1", "big", 20_000_000)
    assert await store.sink.apply(batch(OWNER, 3, 4, [taken])) == Applied(4)
    assert [signal.kind for signal in await store.signals()] == ["exhausted", "cutoff"]
    await damage(store, b"junk", "c/a1/big")
    assert await mend(store.functions, PARTITION, "a1") == "mended"
    assert [(signal.kind, signal.available_micros) for signal in await store.signals()] == [("restored", 19_998_800)]


async def test_r1_of_a_record_and_a_hold_both_are_mended(store: Store) -> None:
    await damage(store, b"junk")
    accounts = store.functions.keys.data(PARTITION, str(store.incarnation))[1]
    await store.client.hset(accounts, "a1", b"junk")
    assert await mend(store.functions, PARTITION, "a1") == "mended"
    assert await store.reader.read_balance("a1") == Unknown("deriving")
    assert (await store.state())["accounts"]["a1"].held == 600


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
@pytest.mark.parametrize("ends", [False, True])
async def test_r1_the_next_event_of_its_session_makes_the_balance_unknown_and_the_derivation_right(
    store: Store, junk: bytes, ends: bool
) -> None:
    await damage(store, junk)
    event = charge(3, "a1", "s1", 70) if ends else hold(3, "a1", "s1", 900, elapsed=60)
    more = [event, hold(4, "a2", "s4", 7)]
    assert await store.sink.apply(batch(OWNER, 3, 5, more)) == Applied(5)
    assert await store.reader.read_balance("a1") == Unknown("unreadable")
    assert await held(store, "a2") == 12
    settled = [("call", "s1")] if ends else []
    snapshot = AccountSnapshot("t1", "USD", 20_000_000, 70 * ends, 0, None, 0, 1, 3 if ends else -1, "open", settled)
    passed = {} if ends else {"c/a1/s1": HoldRecord(900, 60, END_MS)}
    sink = RedisSink(store.functions, TOPICS, ledger=FixedLedger({"a1": snapshot}), passed=FixedLog({"a1": passed}))
    claimed = await sink.claim(PARTITION, "n2")
    assert isinstance(claimed, Claimed)
    assert await sink.tend(claimed.owner, PARTITION, at_end=True) == Tended(True)
    assert (await held(store), await named(store)) == (600 if ends else 1500, [])


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
async def test_r1_its_lease_ends_without_a_signal_of_what_nobody_knows(store: Store, junk: bytes) -> None:
    await damage(store, junk)
    assert await store.sink.apply(batch(OWNER, 3, 4, [], log_time_ms=END_MS)) == Applied(4)
    assert await store.sink.tend(OWNER, PARTITION, at_end=True) == Tended(False)
    assert (await held(store), await held(store, "a2"), await named(store)) == (0, 0, [])
    told = [(signal.session, signal.amount_micros) for signal in await store.signals()]
    assert sorted(told) == [("c/a1/s2", 600), ("c/a2/s3", 5)]
