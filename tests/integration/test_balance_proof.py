"""The write proof: what it refuses, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from balance_harness import PARTITION, START_MS, Store, batch, charge, entries, hold, opened, posted

from billing.balance import admin
from billing.balance.balances import Known
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.proof import (
    Durability,
    Expected,
    ProofAnswer,
    ProofRefusal,
    ProofRefused,
    ProofUnavailable,
    Proved,
    prove,
)
from billing.stream.sink import Applied, Owner

OWNER = Owner(1, "n")


class Prover:
    """Proofs of one store; `url` is where a newly discovered connection leads."""

    def __init__(self, store: Store, url: str) -> None:
        self.store, self.url = store, url

    async def __call__(self, account: str = "a1", marker: str = "i1", **changes: Any) -> ProofAnswer:
        expected = Expected(changes.get("incarnation", 1), changes.get("timeline", "t1"), changes.get("position", 0))
        return await prove(
            changes.get("functions", self.store.functions),
            PARTITION,
            account,
            marker,
            expected=expected,
            discover=lambda: open_client(changes.get("url", self.url)),
            durability=changes.get("durability", Durability()),
            deadline_s=changes.get("deadline_s", 8.0),
        )


async def _fill(store: Store) -> None:
    await store.start()
    await store.claimed()
    assert await store.sink.apply(entries(OWNER, 0, [opened("a1"), posted("a1", 2, -700)])) == Applied(2)
    ops = [hold(0, "a1", "s1", 600), charge(1, "a1", "s2", 500)]
    assert await store.sink.apply(batch(OWNER, 0, 2, ops)) == Applied(2)


class _store:
    """A filled store on a server of the test's own, which goes with the test, so nothing has to be removed."""

    def __init__(self, url: str) -> None:
        self._context = Store.open(url)

    async def __aenter__(self) -> Store:
        store: Store = await self._context.__aenter__()
        await _fill(store)
        return store

    async def __aexit__(self, *details: Any) -> None:
        return None


@pytest.fixture
async def prover(services: Any) -> AsyncIterator[Prover]:
    """A store with one account that was used."""
    async with Store.open(services.redis_url) as store:
        await _fill(store)
        yield Prover(store, services.redis_url)


def refused(answer: ProofAnswer) -> ProofRefusal:
    assert isinstance(answer, ProofRefused), answer
    return answer.reason


async def test_r2_a_proof_returns_the_balance_and_leaves_its_marker(prover: Prover) -> None:
    answer = await prover(position=2)
    assert isinstance(answer, Proved)
    amounts = (answer.credit_micros, answer.used_micros, answer.held_micros, answer.excluded_micros)
    assert amounts == (20_000_000 - 700, 500, 600, 700)
    assert answer.level_micros == 20_000_000 - 500  # debits that were not usage are added back, holds left out
    assert (answer.ledger_seq, answer.incarnation, answer.owner, answer.status) == (2, 1, OWNER, "open")
    assert (answer.usage_position, answer.entries_position, answer.log_time_ms) == (2, 2, START_MS)
    info = await prover.store.client.info("server")
    assert answer.run_id == info["run_id"]
    known = await prover.store.reader.read_balance("a1")
    assert isinstance(known, Known)
    assert known.level_micros == answer.level_micros
    assert (known.usage_position, known.log_time_ms) == (2, START_MS)
    assert await prover.store.state()  # sizes and torn mark are as they must be: the marker is no part of the books
    assert isinstance(await prover(marker="i2"), Proved)
    key = prover.store.functions.keys.data(PARTITION, "1")[-1]
    assert await prover.store.client.hgetall(key) == {b"a1": b"i2"}


async def test_r1_an_unknown_or_missing_account_is_refused(prover: Prover) -> None:
    assert refused(await prover("nobody")) is ProofRefusal.NO_ACCOUNT
    assert await prover.store.sink.apply(entries(OWNER, 2, [posted("a1", 9, 5)])) == Applied(3)
    assert await prover() == ProofRefused(ProofRefusal.UNKNOWN, "gap")


async def test_s09_another_incarnation_timeline_or_version_is_refused(prover: Prover) -> None:
    assert refused(await prover(incarnation=2)) is ProofRefusal.INCARNATION
    assert await prover(timeline="t2") == ProofRefused(ProofRefusal.TIMELINE, "t1")
    store = prover.store
    other = Functions(store.client, store.functions.keys, library=store.functions.library, version="another")
    assert refused(await prover(functions=other)) is ProofRefusal.VERSION
    key = store.functions.keys.data(PARTITION, "1")[-1]
    assert await store.client.exists(key) == 0, "a refused proof writes nothing"


async def test_s08_an_empty_torn_halted_or_rebuilding_store_is_refused(prover: Prover) -> None:
    store = prover.store
    meta = store.functions.keys.meta(PARTITION)
    await store.client.hset(meta, "torn", "1")
    assert await prover() == ProofRefused(ProofRefusal.NOT_READY, "torn")
    await store.client.hdel(meta, "torn")
    await store.sink.halt(OWNER, PARTITION, "fingerprint")
    assert await prover() == ProofRefused(ProofRefusal.HALTED, "fingerprint")
    assert isinstance(await admin.begin_rebuild(store.functions, PARTITION, 2), admin.Rebuild)
    assert await prover() == ProofRefused(ProofRefusal.NOT_READY, "rebuilding")
    await store.wipe()
    assert await prover() == ProofRefused(ProofRefusal.NOT_READY, "empty")


async def test_a_store_behind_the_signal_is_refused(prover: Prover) -> None:
    assert refused(await prover(position=3)) is ProofRefusal.BEHIND


async def test_a_marker_that_another_proof_overwrote_is_refused(prover: Prover) -> None:
    answers = await asyncio.gather(*(prover(marker=f"i{number}") for number in range(20)))
    key = prover.store.functions.keys.data(PARTITION, "1")[-1]
    left: Any = await prover.store.client.hget(key, "a1")
    proved = {f"i{number}" for number, answer in enumerate(answers) if isinstance(answer, Proved)}
    assert left.decode() in proved
    assert {refused(answer) for answer in answers if not isinstance(answer, Proved)} <= {ProofRefusal.MARKER}


async def test_r11_markers_are_bounded_and_one_that_was_evicted_fails_its_proof(prover: Prover) -> None:
    client, key = prover.store.client, prover.store.functions.keys.data(PARTITION, "1")[-1]
    await client.hset(key, mapping={f"other{number}": "i0" for number in range(10_000)})
    assert isinstance(await prover(), Proved)
    assert await client.hlen(key) <= 10_000
    assert await client.hget(key, "a1") == b"i1"


async def test_s49_an_isolated_old_primary_is_refused(private_valkey: Callable[..., Any]) -> None:
    """The worker's connection still reaches the old primary; a new one finds the replica that was promoted."""
    quick = {"repl-diskless-sync-delay": "0"}
    old, new = private_valkey(config=quick), private_valkey(config=quick)
    async with _store(old.url) as store:
        prover = Prover(store, old.url)
        assert isinstance(await prover(), Proved)
        async with open_client(new.url) as promoted:
            await promoted.replicaof("127.0.0.1", old.port)
            async with asyncio.timeout(20):
                while (await promoted.info("replication"))["master_link_status"] != "up":
                    await promoted.ping()
            assert isinstance(await prover(durability=Durability(replicas=1)), Proved)
            assert refused(await prover(url=new.url)) is ProofRefusal.RUN_ID
            await promoted.replicaof("NO", "ONE")
            assert refused(await prover(url=new.url)) is ProofRefusal.RUN_ID
            waited = await prover(durability=Durability(replicas=1, wait_ms=100))
            assert waited == ProofRefused(ProofRefusal.REPLICAS, "0 of 1")
            await store.client.replicaof("127.0.0.1", new.port)  # the old one is made a replica
            answer = await prover()
            assert refused(answer) is ProofRefusal.READ_ONLY or isinstance(answer, ProofUnavailable)
            await store.client.replicaof("NO", "ONE")


async def test_the_append_only_file_is_waited_for(private_valkey: Callable[..., Any]) -> None:
    server = private_valkey(config={"appendfsync": "always"})
    async with _store(server.url) as store:
        prover, aof = Prover(store, server.url), Durability(aof=True)
        assert isinstance(await prover(durability=aof), Proved)
        await store.client.config_set("appendfsync", "no")
        assert await prover(durability=Durability(aof=True, wait_ms=50)) == ProofRefused(
            ProofRefusal.AOF, "no fsync in time"
        )
        await store.client.config_set("appendonly", "no")
        assert refused(await prover(durability=aof)) is ProofRefusal.AOF


async def test_s12_a_server_that_cannot_write_is_refused(private_valkey: Callable[..., Any]) -> None:
    server = private_valkey()
    async with _store(server.url) as store:
        prover = Prover(store, server.url)
        await store.client.config_set("min-replicas-to-write", "1")
        assert await prover() == ProofRefused(ProofRefusal.READ_ONLY, "NOREPLICAS")
        await store.client.config_set("min-replicas-to-write", "0")
        await store.client.client_pause(600, all=True)
        assert await prover(deadline_s=0.2) == ProofUnavailable("timeout")
        assert isinstance(await prover(), Proved)
        await store.client.function_flush()
        assert await prover() == ProofRefused(ProofRefusal.NOT_READY, "functions missing")
        server.kill()
        assert isinstance(await prover(), ProofUnavailable)
