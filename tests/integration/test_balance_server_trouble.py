"""A balance store that cannot write, is away, or came back with less than it had, on servers of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from balance_harness import PARTITION, TOPICS, Store, batch, charge, entries, hold, opened

from billing.balance.balances import Known, Unknown
from billing.balance.client import check_server, open_client
from billing.balance.store import RedisSink
from billing.stream.sink import Applied, Claimed, Owner, ReadOnly, Unavailable, Uninitialised

OWNER = Owner(1, "n")


async def test_s12_a_server_that_cannot_write_changes_nothing(private_valkey: Callable[..., Any]) -> None:
    server = private_valkey()
    async with _store(server.url) as store:
        before = await store.state()
        made = batch(OWNER, 0, 1, [charge(0, "a1", "s1", 500)])
        for name, value, normal, code in (
            ("maxmemory", "1", "0", "OOM"),
            ("min-replicas-to-write", "1", "0", "NOREPLICAS"),
        ):
            await store.client.config_set(name, value)
            assert await store.sink.apply(made) == ReadOnly(code)
            assert await store.sink.claim(PARTITION, "x") == ReadOnly(code)
            assert isinstance(await store.reader.read_balance("a1"), Known)
            await store.client.config_set(name, normal)
            assert await store.state() == before
        other = private_valkey()
        await store.client.replicaof("127.0.0.1", other.port)
        answer = await store.sink.apply(made)
        assert answer == ReadOnly("READONLY") or isinstance(answer, Unavailable)
        await store.client.replicaof("NO", "ONE")


async def test_s39_a_silent_server_is_unavailable_and_its_late_reply_is_dropped(
    private_valkey: Callable[..., Any],
) -> None:
    server = private_valkey()
    async with _store(server.url) as store:
        store.functions._timeout_s = 0.2
        made = batch(OWNER, 0, 1, [charge(0, "a1", "s1", 500)])
        await store.client.client_pause(600, all=True)
        assert await store.sink.apply(made) == Unavailable("timeout")
        assert await store.reader.read_balance("a1") == Unknown("unavailable", "timeout")
        store.functions._timeout_s = 5.0
        answer = await store.sink.apply(made)  # the first one ran after the pause, or did not
        assert answer == Applied(1) or type(answer).__name__ == "Behind"
        known = await store.reader.read_balance("a1")
        assert isinstance(known, Known)
        assert known.used_micros == 500


async def test_a_server_that_is_away_is_unavailable(private_valkey: Callable[..., Any]) -> None:
    server = private_valkey()
    async with _store(server.url) as store:
        server.kill()
        assert isinstance(await store.sink.apply(batch(OWNER, 0, 1, [])), Unavailable)
        assert isinstance(await store.sink.claim(PARTITION, "x"), Unavailable)
        answer = await store.reader.read_balance("a1")
        assert answer == Unknown("unavailable", "no connection")
        server.start()


async def test_r1_a_server_that_restarts_empty_is_uninitialised(private_valkey: Callable[..., Any]) -> None:
    server = private_valkey(config={"appendonly": "no"})
    async with _store(server.url) as store:
        server.kill()
        server.start()
        made = batch(OWNER, 0, 1, [])
        while isinstance(answer := await store.sink.apply(made), Unavailable):
            pass  # a connection of the server that died; each is used once
        assert answer == Uninitialised("functions missing")
        assert await store.reader.read_balance("a1") == Unknown("functions missing")


async def test_s46_a_record_that_another_hand_wrote_is_unknown_and_hides_no_other(
    private_valkey: Callable[..., Any],
) -> None:
    async with _store(private_valkey().url) as store:
        assert await store.sink.apply(entries(OWNER, 1, [opened("a2")])) == Applied(2)
        incarnation = await store.functions.incarnation(PARTITION)
        assert isinstance(incarnation, str)
        accounts = store.functions.keys.all(PARTITION, incarnation)[2]
        whole = await store.client.hget(accounts, "a1")
        not_a_number = whole[:3] + b"\xff" * 8 + whole[11:]
        for written in (b"junk", whole + b"x", b"\xff" * len(whole), not_a_number):
            await store.client.hset(accounts, "a1", written)
            found = await store.reader.read_many(PARTITION, ["a1", "a2"])
            assert isinstance(found, dict)
            assert isinstance(found["a1"], Unknown), written
            assert found["a1"].reason == "unreadable"
            assert isinstance(found["a2"], Known)
            assert await store.reader.read_balance("a1") == found["a1"]


async def test_s10_a_truncated_aof_takes_balance_and_position_back_together(
    private_valkey: Callable[..., Any],
) -> None:
    """Cut at many places of the tail, the log's replay from the stored position converges exactly."""
    server = private_valkey(config={"appendfsync": "always", "auto-aof-rewrite-percentage": "0"})
    async with _store(server.url) as store:
        log = [
            batch(OWNER, 2 * i, 2 * i + 2, [hold(2 * i, "a1", f"s{i}", 600), charge(2 * i + 1, "a1", f"s{i}", i)])
            for i in range(20)
        ]
        for made in log:
            assert await store.sink.apply(made) == Applied(made.to_offset)
        expected = await store.state()
        seen = set()
        for cut in (1, 40, 300, 900, 1_700, 2_600):
            server.kill()
            aof = max(server.directory.rglob("*.incr.aof"), key=lambda path: path.stat().st_size)
            with aof.open("r+b") as file:
                file.truncate(aof.stat().st_size - cut)
            server.start()
            await store.client.connection_pool.disconnect()  # of the test's own look at the state
            claimed = await _claim(store)
            start = claimed.positions[TOPICS.usage].offset
            seen.add(start)
            for made in log[start // 2 :]:
                again = batch(claimed.owner, made.from_offset, made.to_offset, list(made.ops))
                assert await store.sink.apply(again) == Applied(made.to_offset)
            state = await store.state()
            assert {**state, "owner": None} == {**expected, "owner": None}
        assert min(seen) < 40, "some cut was meant to lose batches"


async def test_the_server_is_named_and_accepted(private_valkey: Callable[..., Any]) -> None:
    client = open_client(private_valkey().url)
    assert (await check_server(client)).startswith(("valkey 9.", "redis 7.4."))
    await client.aclose()


class _store:
    """A started store with account a1."""

    def __init__(self, url: str) -> None:
        self._context = Store.open(url)

    async def __aenter__(self) -> Store:
        store: Store = await self._context.__aenter__()
        await store.start()
        await store.claimed()
        assert await store.sink.apply(entries(OWNER, 0, [opened("a1")])) == Applied(1)
        return store

    async def __aexit__(self, *details: Any) -> None:
        """The server goes with the test, so nothing has to be removed."""


async def _claim(store: Store) -> Claimed:
    sink = store.sink = RedisSink(store.functions, TOPICS)
    async with asyncio.timeout(10):
        while True:
            answer = await sink.claim(PARTITION, "next")
            if isinstance(answer, Claimed):
                return answer
            assert isinstance(answer, Unavailable), answer
            await asyncio.sleep(0.05)
