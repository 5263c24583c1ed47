"""The balance store in a cluster of three primaries: every call reaches its partition's node, and what happens to nodes
and slots is Unavailable until it is over, never a lost or an unknown balance."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest
from balance_harness import TOPICS
from redis.crc import key_slot
from targets_harness import PARTITIONS, START, Flow, advanced, cluster_servers, flowing, functions_at, until

from billing.admission.balances import QuickReads
from billing.balance import admin
from billing.balance.balances import Known, NoSuchAccount, Unknown
from billing.balance.calls import Functions
from billing.balance.client import UnsupportedServer, check_server, node_of, open_client, primaries
from billing.balance.cluster import Cluster
from billing.balance.keys import KeySpace
from billing.balance.proof import Durability, Expected, Proved, prove
from billing.balance.reader import BalanceReader
from billing.balance.records import AccountRecord, HoldRecord
from billing.devstack.valkey_cluster import ClusterNode, ValkeyCluster, command
from billing.guard.expected import Expected as ExpectedServer
from billing.guard.places import Target
from billing.guard.watch import Guard
from billing.ledger.incarnations import Identity
from billing.stream.record import Position
from billing.stream.sink import Applied, Tended, Uninitialised


@pytest.fixture(scope="module")
def servers() -> Iterator[ValkeyCluster]:
    with cluster_servers() as found:
        asyncio.run(found.build())
        yield found


@pytest.fixture
async def functions(servers: ValkeyCluster) -> AsyncIterator[Functions]:
    async with functions_at(servers.url) as found:
        yield found


async def _flows(functions: Functions, partitions: range = range(PARTITIONS)) -> list[Flow]:
    return [await Flow(functions, partition).open() for partition in partitions]


def _slot(functions: Functions, partition: int) -> int:
    return int(key_slot(functions.keys.meta(partition).encode()))


def _guard(url: str, keys: KeySpace) -> Guard:
    async def identity() -> Identity:
        return Identity("t1", PARTITIONS, 1)

    target = Target(url, timeout_s=1.0, max_connections=8)
    return Guard(target, keys, TOPICS, identity, expected=ExpectedServer())


async def test_every_step_of_a_store_works_on_all_primaries(servers: ValkeyCluster, functions: Functions) -> None:
    assert (await check_server(functions.client)).endswith("a cluster of 3 primaries")
    flows = await _flows(functions)
    for flow in flows:
        assert await flow.step() == Applied(5)
        assert isinstance(await flow.sink.tend(flow.owner, flow.partition, at_end=True), Tended)
        await flow.exact()
        assert isinstance(await flow.reader.read_balance("b"), NoSuchAccount)
    used = [len(await command(node, "KEYS", f"{functions.keys.prefix}:*")) for node in servers.primaries]
    assert all(used), "the partitions are spread over all primaries"

    again = functions_at(servers.url)  # another process
    async with again:
        reads = QuickReads(functions.client, functions.keys, timeout_s=1.0)
        reader = BalanceReader(reads, TOPICS, lambda _: 5, incarnation=1, timeline="t1")
        assert isinstance(await reader.read_balance("a"), Known)
        assert isinstance(await reader.read_holds("a"), list)
        assert [account async for account, _ in reader.scan_partition(5)] == ["a"]
        reads.close()


async def test_a_rebuild_fills_a_partition_of_a_cluster(functions: Functions) -> None:
    flow = await Flow(functions, 2).open()
    await flow.step()
    rebuild = await admin.begin_rebuild(functions, 2, 2)
    assert isinstance(rebuild, admin.Rebuild)
    assert isinstance(await flow.reader.read_balance("a"), Unknown)
    record = AccountRecord("USD", 9, 4, 3, 0, None, 0, 1, 4, "open")
    steps = [
        await admin.write_accounts(functions, rebuild, {"a": record}),
        await admin.write_holds(functions, rebuild, {("call", "a", "h"): HoldRecord(3, 0, START.log_time_ms + 1)}),
        await admin.finish_rebuild(functions, rebuild, "t1", admin.Positions(Position(5, "f"), Position(1, "f"))),
    ]
    assert steps == [admin.Done()] * 3
    known = await flow.reader.read_balance("a")
    assert isinstance(known, Known)
    assert (known.used_micros, known.held_micros, known.usage_position) == (4, 3, 5)
    assert [hold.session for hold in await flow.reader.read_holds("a")] == ["h"]  # type: ignore[union-attr]


async def test_r2_a_proof_is_written_and_read_again_on_the_partitions_own_node(
    servers: ValkeyCluster, functions: Functions
) -> None:
    for partition in (0, 1, 2, 3):
        flow = await Flow(functions, partition).open()
        answer = await prove(
            functions,
            partition,
            "a",
            "i1",
            expected=Expected(1, "t1", 0),
            discover=lambda: open_client(servers.url, majority=True),
            durability=Durability(aof=True),
        )
        assert isinstance(answer, Proved), answer
        node = await node_of(functions.client, functions.keys.meta(flow.partition))
        assert answer.run_id == (await node.info("server"))["run_id"]


@pytest.mark.slow
async def test_s49_a_proof_needs_a_majority_of_the_primaries(servers: ValkeyCluster, functions: Functions) -> None:
    await Flow(functions, 0).open()
    slot = _slot(functions, 0)
    owner = await servers.owner(slot)
    others = [node for node in servers.primaries if node is not owner]
    for node in others:
        node.pause()
    try:
        answer = await prove(
            functions,
            0,
            "a",
            "i1",
            expected=Expected(1, "t1", 0),
            discover=lambda: open_client(f"redis+cluster://127.0.0.1:{owner.port}/", majority=True),
        )
    finally:
        for node in others:
            node.resume()
    assert not isinstance(answer, Proved), "its own node alone named it"

    async def well() -> bool:
        infos = [(await command(node, "CLUSTER", "INFO")).decode() for node in servers.primaries]
        return all("cluster_state:ok" in info and "cluster_slots_fail:0" in info for info in infos)

    await until(well)


async def test_s39_a_task_in_a_busy_loop_of_calls_ends_when_it_is_cancelled_once(functions: Functions) -> None:
    flow, rng = await Flow(functions, 3).open(), random.Random(39)

    async def busy() -> None:
        while True:
            await flow.reader.read_balance("a")

    for _ in range(30):
        task = asyncio.create_task(busy())
        await asyncio.sleep(rng.uniform(0, 0.005))
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done, "the cancellation was lost"
        assert task.cancelled()
    assert await flow.step() == Applied(5)
    await flow.exact()


async def test_r1_a_slot_that_is_moved_is_unavailable_and_then_goes_on(
    servers: ValkeyCluster, functions: Functions
) -> None:
    flows = await _flows(functions, range(3))
    slot = _slot(functions, 1)
    source = await servers.owner(slot)
    target = next(node for node in servers.primaries if node is not source)
    async with flowing(flows):
        await advanced(flows, 20)
        await servers.begin_move(slot, source, target)
        await servers.move_keys(slot, source, target, 2)
        flows[1].answers.clear()
        before = flows[1].position
        for _ in range(3):
            assert isinstance(await _balance(flows[1]), Unknown)
            await advanced([flows[0], flows[2]], 20)  # other partitions go on
        assert flows[1].answers <= {"Unavailable"}, flows[1].reasons
        assert flows[1].position == before
        while await servers.move_keys(slot, source, target, 2):
            pass
        await servers.end_move(slot, source, target)
        await advanced(flows, 20)
    assert any(reason.startswith(("TryAgainError", "AskError")) for reason in flows[1].reasons), flows[1].reasons
    for flow in flows:
        assert flow.rewinds == 0
        await flow.exact()
    assert await servers.owner(slot) is target
    fresh = Flow(Functions(functions.client, functions.keys), 1)
    await fresh._claim()
    assert fresh.position == flows[1].position


async def _balance(flow: Flow) -> object:
    """What a reader is told: never "empty" or another reason that calls for a rebuild."""
    answer = await flow.reader.read_balance("a")
    assert not isinstance(answer, Unknown) or answer.reason == "unavailable", answer
    return answer


async def test_a_primary_without_the_functions_is_named_and_migrate_brings_them(
    servers: ValkeyCluster, functions: Functions
) -> None:
    flow = await Flow(functions, 0).open()
    node = await servers.owner(_slot(functions, 0))
    await command(node, "FUNCTION", "FLUSH")
    assert await flow.sink.claim(0, "n") == Uninitialised("functions missing")
    assert await flow.reader.read_balance("a") == Unknown("functions missing")
    verdict = await _guard(servers.url, functions.keys).look()
    assert "functions_missing" in verdict.reasons
    assert f"127.0.0.1:{node.port}: partition" in verdict.reason
    assert await admin.load_functions(functions) is None
    await flow._claim()
    await flow.exact()


async def test_each_target_is_refused_under_the_name_of_another(servers: ValkeyCluster, functions: Functions) -> None:
    async with open_client(servers.primaries[0].url) as client:
        with pytest.raises(UnsupportedServer, match=r"redis\+cluster://"):
            await check_server(client)
    assert len(await primaries(functions.client)) == 3
    assert isinstance(functions.client, Cluster)


async def test_the_guard_looks_at_every_primary(servers: ValkeyCluster, functions: Functions) -> None:
    await _flows(functions)
    guard = _guard(servers.url, functions.keys)
    verdict = await guard.look()
    assert verdict.healthy, verdict.reason
    assert verdict.seen["partitions"] == {"known": 8, "unknown": 0}
    assert len(verdict.seen["primaries"]) == 3  # type: ignore[arg-type]
    sick: ClusterNode = servers.primaries[1]
    await command(sick, "CONFIG", "SET", "appendonly", "no")
    verdict = await guard.look()
    assert verdict.reasons == ("persistence_off",)
    assert verdict.reason.startswith(f"persistence_off: 127.0.0.1:{sick.port}: the AOF is off")
    await command(sick, "CONFIG", "SET", "appendonly", "yes")
