"""Several runners in one group over one store: zombies change nothing, two owners do not take turns for ever."""

from __future__ import annotations

import asyncio

from stream_bench import Bench, running, until

from billing.stream.log import Fetched


async def test_partitions_move_when_members_come_and_go_and_every_record_is_applied_once() -> None:
    bench = Bench(topics=("entries", "usage"), partitions=6)
    for partition in range(6):
        bench.append(300, partition=partition)
        bench.append(50, topic="entries", partition=partition)
    async with running(bench.runner()):
        await until(lambda: bench.sink.position("usage", 0).offset > 0)
        async with running(bench.runner()), running(bench.runner()):
            await until(lambda: len(bench.group._members) == 3)
            for partition in range(6):
                bench.append(300, partition=partition)
                await bench.settled(partition)
        for partition in range(6):
            bench.append(10, partition=partition)
            await bench.settled(partition)
            await bench.settled(partition, "entries")
    assert bench.sink.count("apply", "Behind") == 0


async def test_s02_a_consumer_stopped_past_the_rebalance_wakes_up_and_changes_nothing() -> None:
    """Its batch is inside the store call when it is thrown out; another owner goes on; then the call goes through."""
    bench = Bench()
    bench.append(50)
    bench.interpreters["usage"].takes = 10
    zombie = bench.runner()
    async with running(zombie) as zombie_task:
        await until(lambda: bench.sink.position("usage", 0).offset >= 10)
        bench.members[0].frozen = True  # hears nothing of the group from here on
        bench.sink.gate.clear()
        reached = bench.sink.position("usage", 0).offset
        await asyncio.sleep(0)
        async with running(bench.runner()):
            await until(lambda: len(bench.members) == 2)
            await bench.group.remove(bench.members[0])
            bench.sink.gate.set()
            await bench.settled()
            await until(lambda: bench.sink.count("apply", "Fenced") + bench.sink.count("tend", "Fenced") >= 1)
            await until(lambda: len(bench.members) >= 3)  # fenced: it left and joined again
            bench.append(50)
            await bench.settled()
        assert reached <= bench.sink.position("usage", 0).offset
        assert not zombie_task.done()


async def test_s03_two_owners_in_a_rebalance_window_have_effects_once_and_no_livelock() -> None:
    """A member that missed the rebalance goes on beside the new owner; even its late claim only costs one more
    generation."""
    bench = Bench(partitions=2)
    bench.append(500, partition=0)
    bench.append(500, partition=1)
    for interpreter in bench.interpreters.values():
        interpreter.takes = 20
    async with running(bench.runner()):
        await until(lambda: bench.sink.position("usage", 0).offset > 0)
        old = bench.members[0]
        old.frozen = True
        async with running(bench.runner()):
            await until(lambda: len(bench.members) == 2)
            await bench.group.remove(old)
            for round_ in range(5):  # the old one's late claim takes the partition from the rightful owner
                await bench.sink.claim(round_ % 2, "late claim of a zombie")
                bench.append(20, partition=round_ % 2)
            await bench.settled(0)
            await bench.settled(1)
            await until(lambda: len(bench.group._members) == 2)
            for _ in range(5):  # what the last claim has cost may still be under way
                generations = bench.group.generation
                bench.append(100, partition=0)
                bench.append(100, partition=1)
                await bench.settled(0)
                await bench.settled(1)
                if bench.group.generation == generations:
                    break
            assert bench.group.generation == generations  # it has come to rest


async def test_a_client_that_died_silently_is_noticed_and_replaced() -> None:
    bench = Bench()
    bench.append(5)
    async with running(bench.runner()):
        await bench.settled()
        bench.members[-1].broken = True
        await until(lambda: len(bench.members) == 2)
        bench.append(5)
        await bench.settled()


async def test_a_client_that_brings_no_records_though_there_are_some_is_replaced() -> None:
    bench = Bench()
    bench.append(5)
    async with running(bench.runner()) as task:
        await bench.settled()
        stuck = bench.members[-1]
        nothing = {"usage": Fetched(5, (), 5)}
        stuck._read = lambda *_args: nothing  # type: ignore[method-assign]  # a fetcher that ended without a word
        bench.append(5)
        await until(lambda: len(bench.members) == 2)
        await bench.settled()
        assert not task.done()


async def test_records_lost_inside_the_client_are_fetched_again() -> None:
    """The client's position moved without the records reaching the lane: the lane seeks back to its own."""
    bench = Bench()
    bench.append(5)
    async with running(bench.runner()):
        await bench.settled()
        bench.append(10)
        bench.members[-1].seek("usage", 0, 12)
        await bench.settled()


async def test_the_next_lane_of_a_partition_waits_for_the_call_in_hand_of_the_one_before() -> None:
    bench = Bench()
    bench.append(5)
    bench.sink.gate.clear()
    async with running(bench.runner()):
        await until(lambda: bench.group.generation == 1)
        await asyncio.sleep(0.02)
        rebalancing = asyncio.create_task(bench.group.rebalance())
        await asyncio.sleep(0.02)
        assert bench.sink.count("claim", "Claimed") == 0
        bench.sink.gate.set()
        await rebalancing
        await bench.settled()
        assert bench.sink.count("apply", "Fenced") == 0
