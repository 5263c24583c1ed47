"""Signals from the balance store to a real Kafka: acknowledged before they are trimmed, repeated, never lost."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from balance_harness import PARTITION, START_MS, TOPICS, Store, batch, charge, entries, hold, opened, posted

from billing.balance.publishing import SignalPublisher
from billing.balance.store import RedisSink
from billing.lab.waiting import until
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.log import LogAway
from billing.stream.publisher import Publisher
from billing.stream.record import Record
from billing.stream.sink import Applied, Claimed, Owner, Tended
from billing.usage.ops import CALL_LEASE_MS
from schemas.common import CONTENT_TYPE
from schemas.signals import (
    BalanceExhausted,
    BalanceLow,
    BalanceRestored,
    HoldExpired,
    SessionCutoff,
    SessionName,
    Signal,
    decode_signal,
)

DEADLINE_S = 20.0


@pytest.fixture
async def store(services: Any) -> AsyncIterator[Store]:
    """A store without accounts."""
    async with Store.open(services.redis_url) as store:
        await store.start()
        yield store


@pytest.fixture
async def topic(settings: Settings) -> str:
    """An empty topic for signals."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(settings.topics.signals, settings.partitions, 1)])
    finally:
        await admin.close()
    return settings.topics.signals


class Owned:
    """The partition, owned by a sink whose signals are published."""

    def __init__(self, store: Store, sink: RedisSink, owner: Owner) -> None:
        self.store, self.sink, self.owner = store, sink, owner
        self.usage, self.entries = 0, 0

    async def take(self, *made: Any) -> None:
        to = self.entries + len(made)
        batch_ = replace(entries(self.owner, self.entries, list(made)), to_offset=to)
        assert await self.sink.apply(batch_) == Applied(to)
        self.entries = to

    async def use(self, *ops: Any, log_time_ms: int = START_MS) -> None:
        to = self.usage + max(1, len(ops))
        made = batch(self.owner, self.usage, to, list(ops), log_time_ms=log_time_ms)
        assert await self.sink.apply(made) == Applied(to)
        self.usage = to


@asynccontextmanager
async def owning(store: Store, topic: str, publisher: Any, *, nonce: str = "n", repeat_s: float = 60.0) -> Any:
    """Claim the partition and publish its signals until the end of the block."""
    signals = SignalPublisher(store.functions, topic, publisher, repeat_s=repeat_s)
    running = asyncio.create_task(signals.run())
    try:
        sink = RedisSink(store.functions, TOPICS, signals=signals)
        claimed = await sink.claim(PARTITION, nonce)
        assert isinstance(claimed, Claimed)
        lane, now = signals._lanes[PARTITION], time.monotonic()
        await until(lambda: lane.next_round_s > now, "what holds to be told again, as after each claim")
        yield Owned(store, sink, claimed.owner)
        assert not running.done(), running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def published(settings: Settings, least: int) -> list[Record]:
    """What is in the partition's log, once there are at least so many."""
    topic = settings.topics.signals
    async with asyncio.timeout(DEADLINE_S), LogReader(settings.kafka_bootstrap) as reader:
        while (end := (await reader.bounds(topic, PARTITION)).end) < least:
            pass
        return [record async for record in reader.read(topic, PARTITION, 0, end)]


async def signals(settings: Settings, least: int) -> list[Signal]:
    return [decode_signal(record.value) for record in await published(settings, least)]


async def drained(store: Store) -> None:
    """The stream is empty: everything was acknowledged and trimmed."""
    async with asyncio.timeout(DEADLINE_S):
        while (await store.state())["signals"]:
            pass


def publisher_of(settings: Settings) -> Publisher:
    return Publisher(settings.kafka_bootstrap, deadline_seconds=5.0)


async def test_s25_a_low_and_an_exhausted_balance_are_published_with_open_sessions(
    store: Store, settings: Settings, topic: str
) -> None:
    async with publisher_of(settings) as publisher, owning(store, topic, publisher) as owned:
        await owned.take(opened("a1", credit=1_000, below=500))
        await owned.use(hold(0, "a1", "s1", 400), hold(1, "a1", "s2", 100), charge(2, "a1", "s3", 501))
        found = await published(settings, 3)
        await drained(store)
    common = {
        "account": "a1",
        "currency": "USD",
        "incarnation": 1,
        "timeline": "t1",
        "usage_position": 3,
        "log_time_ms": START_MS,
    }
    state = {
        "level_micros": 499,
        "available_micros": -1,
        "recharge_below_micros": 500,
        "credit_limit_micros": 0,
    }
    names = [SessionName(kind="call", session="s1"), SessionName(kind="call", session="s2")]
    low, exhausted, cutoff = (decode_signal(record.value) for record in found)
    assert low == BalanceLow(**common, **state)  # type: ignore[arg-type]
    assert exhausted == BalanceExhausted(**common, **state)  # type: ignore[arg-type]
    assert isinstance(cutoff, SessionCutoff)
    assert (sorted(cutoff.sessions, key=lambda name: name.session), cutoff.more) == (names, False)
    assert {record.key for record in found} == {b"a1"}
    assert dict(found[0].headers)["content-type"] == CONTENT_TYPE


async def test_a_cutoff_names_a_hundred_sessions_and_says_that_there_are_more(
    store: Store, settings: Settings, topic: str
) -> None:
    async with publisher_of(settings) as publisher, owning(store, topic, publisher) as owned:
        await owned.take(opened("a1", credit=2_000), opened("other"))
        await owned.use(*(hold(i, "other", f"o{i}", 1) for i in range(2_500)))
        await owned.use(*(hold(2_500 + i, "a1", f"s{i}", 20) for i in range(150)))
        _, cutoff = await signals(settings, 2)
    assert isinstance(cutoff, SessionCutoff)
    assert (len(set(cutoff.sessions)), cutoff.more, cutoff.account) == (100, True, "a1")
    assert all(name.session.startswith("s") for name in cutoff.sessions)


async def test_no_cutoff_is_published_when_the_sessions_have_ended_meanwhile(
    store: Store, settings: Settings, topic: str
) -> None:
    sink = RedisSink(store.functions, TOPICS)
    claimed = await sink.claim(PARTITION, "first")
    assert isinstance(claimed, Claimed)
    before = Owned(store, sink, claimed.owner)
    await before.take(opened("a1", credit=500))
    await before.use(hold(0, "a1", "s1", 600))
    await before.use(charge(1, "a1", "s1", 500))
    assert [signal.kind for signal in (await store.state())["signals"]] == ["cutoff", "exhausted"]
    async with publisher_of(settings) as publisher, owning(store, topic, publisher):
        await drained(store)
        found = await signals(settings, 2)  # the second is a repeat
    assert {type(signal) for signal in found} == {BalanceExhausted}


async def test_s24_an_expired_hold_is_published(store: Store, settings: Settings, topic: str) -> None:
    late = START_MS + CALL_LEASE_MS
    async with publisher_of(settings) as publisher, owning(store, topic, publisher) as owned:
        await owned.take(opened("a1"))
        await owned.use(hold(0, "a1", "s1", 600), log_time_ms=late)
        assert await owned.sink.tend(owned.owner, PARTITION, at_end=True) == Tended(False)
        (expired,) = await signals(settings, 1)
    assert isinstance(expired, HoldExpired)
    assert (expired.kind, expired.session, expired.amount_micros) == ("call", "s1", 600)
    assert (expired.log_time_ms, expired.usage_position) == (late, 1)


async def test_r9_what_is_no_signal_is_passed_and_trimmed(store: Store, settings: Settings, topic: str) -> None:
    """Of numbers that another hand left in a record, say. Whoever owned the partition would end at the same entry."""
    _, pos, *_, sig, _ = store.functions.keys.all(PARTITION, str(store.incarnation))
    fraction = msgspec.msgpack.encode([5, "a1", "USD", 1.5, 0, False, 0, 1, 1, "c/a1/s1", 1.5])
    for junk in (b"junk", fraction):
        await store.client.xadd(sig, {"s": junk})
    await store.client.hset(pos, "census", "0 0 0 0 0 0 0 0 0 2")
    async with publisher_of(settings) as publisher, owning(store, topic, publisher) as owned:
        await owned.take(opened("a1", credit=5_000_000))
        await owned.use(charge(0, "a1", "s1", 6_000_000))
        (told,) = await signals(settings, 1)
        await drained(store)
    assert isinstance(told, BalanceExhausted)


async def test_what_holds_is_repeated_until_it_ends(store: Store, settings: Settings, topic: str) -> None:
    async with publisher_of(settings) as publisher, owning(store, topic, publisher, repeat_s=0.05) as owned:
        await owned.take(opened("a1", credit=400, below=500), opened("fine"))
        found = await signals(settings, 4)
        assert {type(signal) for signal in found} == {BalanceLow}
        await owned.take(posted("a1", 2, 5_000))
        async with asyncio.timeout(DEADLINE_S):
            while not isinstance((found := await signals(settings, 5))[-1], BalanceRestored):
                pass
        await asyncio.sleep(0.2)  # several rounds: nothing is told any more
        assert len(await signals(settings, 0)) == len(found)


async def test_a_crash_before_the_trim_repeats_under_the_same_id_and_loses_nothing(
    store: Store, settings: Settings, topic: str
) -> None:
    sink = RedisSink(store.functions, TOPICS)
    claimed = await sink.claim(PARTITION, "first")
    assert isinstance(claimed, Claimed)
    before = Owned(store, sink, claimed.owner)
    await before.take(*(opened(f"a{i}", credit=400, below=500) for i in range(5)))
    async with publisher_of(settings) as publisher:
        trims = _FailingTrims(store)
        lost = SignalPublisher(trims, topic, publisher)  # type: ignore[arg-type]
        task = asyncio.create_task(lost.run())
        lost.owned(PARTITION, claimed.owner, str(store.incarnation))
        first = await published(settings, 5)
        async with asyncio.timeout(DEADLINE_S):
            await trims.reached.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        async with owning(store, topic, publisher, nonce="second"):
            again = await published(settings, 10)
            await drained(store)
    ids = [msgspec.json.decode(record.value or b"")["id"] for record in again]
    assert ids[:5] == ids[5:10] == [msgspec.json.decode(record.value or b"")["id"] for record in first]


class _FailingTrims:
    """The functions of a store, up to the first trim: there the process ends."""

    def __init__(self, store: Store) -> None:
        self._functions = store.functions
        self.keys = store.functions.keys
        self.reached = asyncio.Event()

    async def call(self, name: str, keys: list[str], incarnation: str, *args: Any, **more: Any) -> Any:
        if name == "signals" and args[2]:
            self.reached.set()
            await asyncio.Event().wait()
        return await self._functions.call(name, keys, incarnation, *args, **more)


async def test_while_kafka_is_away_nothing_is_trimmed_and_batches_go_on(
    store: Store, settings: Settings, topic: str
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        async with Publisher(nobody, deadline_seconds=0.5) as away, owning(store, topic, away) as owned:
            await owned.take(opened("a2", credit=0, below=500))
            for number in range(20):
                await owned.use(charge(number, "a2", f"s{number}", 1))
            with pytest.raises(LogAway):
                await away.start()
            assert [signal.kind for signal in (await store.state())["signals"]] == ["exhausted", "low"]
    async with publisher_of(settings) as publisher, owning(store, topic, publisher, nonce="second"):
        found = await signals(settings, 4)  # what was there, and a repeat
    assert {type(signal) for signal in found} == {BalanceLow, BalanceExhausted}
    assert [signal.usage_position for signal in found] == [0, 0, 20, 20]


async def test_s02_an_owner_that_was_replaced_publishes_no_more(
    store: Store, settings: Settings, topic: str
) -> None:
    async with publisher_of(settings) as publisher, owning(store, topic, publisher) as owned:
        younger = RedisSink(store.functions, TOPICS)
        claimed = await younger.claim(PARTITION, "younger")
        assert isinstance(claimed, Claimed)
        after = Owned(store, younger, claimed.owner)
        await after.take(opened("a1", credit=400, below=500))
        owned.sink._signals.wake(PARTITION)
        async with asyncio.timeout(DEADLINE_S):
            while owned.sink._signals._lanes:
                await store.state()
        assert len((await store.state())["signals"]) == 1


async def test_s39_the_publisher_ends_whenever_it_is_cancelled(store: Store, settings: Settings) -> None:
    owner = await store.claimed()
    async with publisher_of(settings) as publisher:  # never used: nothing is signalled
        for number in range(100):
            signals_ = SignalPublisher(store.functions, "none", publisher, repeat_s=0.001)
            running = asyncio.create_task(signals_.run())
            signals_.owned(PARTITION, owner, str(store.incarnation))
            for _ in range(number):
                signals_.wake(PARTITION)
                await asyncio.sleep(0)
            running.cancel()
            ended, _ = await asyncio.wait({running}, timeout=5)
            assert ended, f"cancelled after {number} steps"


async def test_r1_a_rebuilt_store_tells_again_what_is_true(
    store: Store, settings: Settings, topic: str
) -> None:
    model = await _rebuildable(store)
    assert len(model.signals) == 2
    await store.rebuild(model)
    assert (await store.state())["signals"] == []
    async with publisher_of(settings) as publisher, owning(store, topic, publisher):
        found = await signals(settings, 2)
    assert {(type(signal), signal.account, signal.incarnation) for signal in found} == {
        (BalanceLow, "low", 2),
        (BalanceExhausted, "spent", 2),
    }


async def _rebuildable(store: Store) -> Any:
    await store.wipe()
    model = await store.start()
    owner = await store.claimed()
    model.claim("n")
    made = entries(owner, 0, [opened("low", credit=4, below=5), opened("spent", credit=0), opened("fine")])
    assert await store.sink.apply(made) == model.apply(made) == Applied(3)
    return model
