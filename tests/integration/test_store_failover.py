"""Failovers under load, by Sentinel and in a cluster, to a replica that is behind: balances and positions rewind
together, and the log fills the rest (S05)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from balance_harness import TOPICS
from redis.crc import key_slot
from redis.exceptions import RedisError
from targets_harness import (
    PARTITIONS,
    Flow,
    Watched,
    advanced,
    cluster_servers,
    cut_off,
    flowing,
    functions_at,
    until,
    watched_servers,
)

from billing.balance.calls import Functions
from billing.balance.client import node_of, open_client
from billing.balance.proof import Expected, ProofRefusal, ProofRefused, ProofUnavailable, Proved, prove
from billing.balance.sentinels import NotPrimary
from billing.devstack.valkey import ValkeyServer
from billing.devstack.valkey_cluster import command
from billing.guard.places import Target
from billing.guard.watch import Guard
from billing.ledger.incarnations import Identity
from billing.stream.sink import Applied, ReadOnly, Unavailable


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watched_servers() as found:
        asyncio.run(found.ready())
        yield found


@pytest.fixture
async def functions(watched: Watched) -> AsyncIterator[Functions]:
    async with functions_at(watched.url) as found:
        yield found


def _guard(url: str, functions: Functions, partitions: int) -> Guard:
    async def identity() -> Identity:
        return Identity("t1", partitions, 1)

    return Guard(Target(url, timeout_s=1.0, max_connections=8), functions.keys, TOPICS, identity)


async def _has(server: ValkeyServer, offset: int, primary: ValkeyServer) -> bool:
    theirs = (await command(primary, "INFO", "replication"))["master_repl_offset"]
    return bool((await command(server, "INFO", "replication"))["slave_repl_offset"] >= theirs - offset)


async def test_the_primary_is_found_through_a_sentinel_that_answers() -> None:
    """One of the addresses is dead. Everything works through the primary that the other names."""
    with watched_servers(replicas=0, sentinels=1) as watched:
        url = watched.url.replace("://", f"://127.0.0.1:{watched.primary.port + 1},", 1)
        async with functions_at(url) as functions:
            flow = await Flow(functions, 0).open()
            assert await flow.step() == Applied(5)
            await flow.exact()
            answer = await prove(
                functions, 0, "a", "i1", expected=Expected(1, "t1", 0), discover=lambda: open_client(watched.url)
            )
            assert isinstance(answer, Proved), answer
            assert isinstance(await _proof_by_majority(functions, url), ProofUnavailable), "1 of 2 is no majority"
            watched.sentinels[0].kill()
            await watched.primary.restart_async()
            assert isinstance(await flow.step(), Unavailable)  # nobody says where it is now
            watched.sentinels[0].start()
            await _applied_again(flow)
            await flow.exact()


async def test_a_server_that_is_a_replica_is_not_taken_for_the_primary_that_the_sentinels_name() -> None:
    with watched_servers(replicas=0, sentinels=1) as watched:
        client = open_client(watched.url)
        assert await node_of(client, "k") is client
        await command(watched.primary, "REPLICAOF", "127.0.0.1", watched.primary.port)
        with pytest.raises(NotPrimary):
            await (await node_of(client, "k")).ping()
        await client.aclose()


async def _proof_by_majority(functions: Functions, url: str) -> object:
    return await prove(
        functions,
        0,
        "a",
        "i1",
        expected=Expected(1, "t1", 0),
        discover=lambda: open_client(url, timeout_s=1.0, majority=True),
    )


async def _elsewhere(watched: Watched) -> bool:
    """Most sentinels name another primary, and it answers."""
    client = open_client(watched.url, majority=True)
    try:
        info = await client.info("server")  # type: ignore[union-attr]
    except (OSError, RedisError):
        return False
    finally:
        await client.aclose()
    return int(info["tcp_port"]) != watched.primary.port


async def _applied_again(flow: Flow) -> None:
    """Until a batch is applied again."""

    async def applied() -> bool:
        return isinstance(await flow.step(), Applied)

    await until(applied)


@pytest.mark.slow
async def test_s05_s45_sentinel_fails_over_to_a_replica_that_is_behind(watched: Watched, functions: Functions) -> None:
    """Both replicas hang while usage flows and the primary dies: whichever is promoted is behind."""
    flows = [await Flow(functions, partition).open() for partition in range(PARTITIONS)]
    guard = _guard(watched.url, functions, PARTITIONS)
    async with flowing(flows):
        await advanced(flows, 20)
        verdict = await guard.look()
        assert verdict.healthy, verdict.reason
        assert len(verdict.seen["around"]) == 2  # type: ignore[arg-type]
        await cut_off(watched.replicas, watched.primary)
        await advanced(flows, 40)
        watched.primary.kill()
        for replica in watched.replicas:
            replica.resume()
        verdict = await guard.look()
        assert verdict.reasons[0] == "away"
        assert "least_stale" in str(verdict.findings), verdict.findings
        await advanced(flows, 20, limit_s=30)
    assert all("Unavailable" in flow.answers for flow in flows)
    assert any(flow.rewinds for flow in flows), "no replica was behind"
    for flow in flows:
        await flow.exact()
    assert (await guard.look()).warnings[0] == "run_id_changed"


@pytest.mark.slow
async def test_s49_a_proof_against_the_old_primary_is_refused(watched: Watched, functions: Functions) -> None:
    """The worker is still connected to it, alive and writable; its discovery finds the new one."""
    await Flow(functions, 0).open()
    plain = open_client(watched.primary.url)
    isolated = Functions(plain, functions.keys)

    async def proof() -> object:
        return await prove(
            isolated,
            0,
            "a",
            "i1",
            expected=Expected(1, "t1", 0),
            discover=lambda: open_client(watched.url, timeout_s=1.0, majority=True),
        )

    try:
        first = await proof()
        assert isinstance(first, Proved), first
        for replica in watched.replicas:
            await until(lambda replica=replica: _has(replica, 0, watched.primary))
        for sentinel in watched.sentinels[:2]:  # a minority alone does not count
            sentinel.pause()
        assert isinstance(await proof(), ProofUnavailable)
        for sentinel in watched.sentinels[:2]:
            sentinel.resume()
        await command(watched.sentinels[2], "SENTINEL", "SET", "billing", "down-after-milliseconds", 60_000)
        watched.primary.pause()
        await until(lambda: _elsewhere(watched), 30)
        for sentinel in watched.sentinels:  # on the other side of the split: they cannot tell it
            sentinel.pause()
        watched.primary.resume()
        assert isinstance(await proof(), ProofUnavailable)
        for sentinel in watched.sentinels:
            sentinel.resume()
        answer = await proof()
        assert isinstance(answer, ProofRefused | ProofUnavailable), answer
        if isinstance(answer, ProofRefused):
            assert answer.reason in (ProofRefusal.RUN_ID, ProofRefusal.READ_ONLY, ProofRefusal.NOT_PRIMARY)
    finally:
        await plain.aclose()


@pytest.mark.slow
async def test_s49_calls_leave_an_old_primary_that_its_replicas_have_left(
    watched: Watched, functions: Functions
) -> None:
    """Nobody can make it a replica, so it answers NOREPLICAS over the connections that calls have, of either kind."""
    old, flow = watched.primary, await Flow(functions, 0).open()
    client = open_client(watched.url)
    pooled, keys = Functions(client, functions.keys), functions.keys.all(0, "1")
    assert await pooled.call("lift", keys, "1", "no such halt") == ["moved"]

    async def left() -> bool:
        return bool((await command(old, "INFO", "replication"))["min_slaves_good_slaves"] == 0)

    for replica in watched.replicas:
        await until(lambda replica=replica: _has(replica, 0, old))
    await command(old, "CONFIG", "SET", "min-replicas-to-write", 1, "min-replicas-max-lag", 1)
    await command(old, "ACL", "SETUSER", "default", "-replicaof", "-slaveof")
    old.pause()
    await until(lambda: _elsewhere(watched), 30)
    old.resume()
    await until(left)
    await _applied_again(flow)
    assert flow.reasons == {"NOREPLICAS"}
    assert await pooled.call("lift", keys, "1", "no such halt") == ReadOnly("NOREPLICAS")
    assert await pooled.call("lift", keys, "1", "no such halt") == ["moved"]
    await client.aclose()
    assert (await command(old, "INFO", "replication"))["role"] == "master"
    await flow.exact()


@pytest.mark.slow
async def test_s05_a_clusters_primary_dies_and_a_replica_that_is_behind_takes_over() -> None:
    with cluster_servers(replicas=1) as servers:
        await servers.build()
        async with functions_at(servers.url) as functions:
            flows = [await Flow(functions, partition).open() for partition in range(PARTITIONS)]
            dying, (heir,) = servers.primaries[0], servers.replicas[0]
            owners = {p: await servers.owner(key_slot(functions.keys.meta(p).encode())) for p in range(PARTITIONS)}
            struck = [flow for flow in flows if owners[flow.partition] is dying]
            spared = [flow for flow in flows if owners[flow.partition] is not dying]
            guard = _guard(servers.url, functions, PARTITIONS)
            async with flowing(flows):
                await advanced(flows, 20)
                assert (await guard.look()).healthy
                await cut_off([heir], dying)
                await advanced(flows, 30)
                dying.kill()
                heir.resume()
                await advanced(spared, 50)  # their nodes are untouched
                verdict = await guard.look()
                assert "away" in verdict.reasons
                assert f"least_stale: 127.0.0.1:{dying.port}: 127.0.0.1:{heir.port}" in str(
                    [str(found) for found in verdict.findings]
                )
                await advanced(struck, 20, limit_s=30)
            for flow in flows:
                await flow.exact()
            assert all("Unavailable" in flow.answers for flow in struck)
            assert any(flow.rewinds for flow in struck), "the replica was not behind"
            assert not any(flow.rewinds for flow in spared)
            dying.start()  # it comes back as a replica

            async def well() -> bool:
                return (await guard.look()).healthy

            await until(well)
