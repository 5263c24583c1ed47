"""The sink protocol against an in-memory log: what the runner does with each answer."""

from __future__ import annotations

import asyncio

import pytest
from stream_bench import FAST, Bench, running, until

from billing.stream.finished import Crashed, Drained, RefusedToRun
from billing.stream.memory_sink import Everything
from billing.stream.record import Position
from billing.stream.sink import Halted, ReadOnly, Refused, Unavailable, Uninitialised


async def test_records_are_applied_in_order_and_kafka_offsets_are_committed_behind_the_sink() -> None:
    bench = Bench(partitions=2)
    bench.append(1200, partition=0)
    bench.append(3, partition=1)
    runner = bench.runner()
    async with running(runner) as task:
        await bench.settled(0)
        await bench.settled(1)
        assert runner.snapshot()["healthy"]
    assert task.result() == Drained()
    assert bench.group.committed == {("usage", 0): 1200, ("usage", 1): 3}


async def test_s01_a_lost_reply_is_retried_answered_behind_and_applied_once() -> None:
    bench = Bench()
    bench.append(10)
    bench.sink.lost_replies = 1
    async with running(bench.runner()):
        await until(lambda: bench.sink.count("apply", "Behind") == 1)
        bench.append(10)
        await bench.settled()
    assert bench.sink.count("apply", "Unavailable") == 1


async def test_s04_a_crash_before_kafkas_commit_resumes_from_the_position_in_the_sink() -> None:
    bench = Bench()
    bench.append(30)
    first = bench.runner()
    task = asyncio.create_task(first.run())
    await bench.settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.group.committed.clear()
    bench.append(30)
    async with running(bench.runner()):
        await bench.settled()


async def test_s05_a_store_that_went_back_is_fed_the_lost_tail_again() -> None:
    bench = Bench()
    bench.append(5)
    async with running(bench.runner()):
        await bench.settled()
        early = bench.sink.position("usage", 0)
        bench.append(5)
        await bench.settled()
        bench.sink.rewind("usage", 0, early)
        bench.append(1)
        await bench.settled()
    assert bench.sink.count("apply", "Behind") == 1


async def test_s05_s07_a_store_that_went_back_is_fed_again_though_no_record_comes() -> None:
    """Found with an isolated primary: credits that it had acknowledged were lost until the account's next entry."""
    bench = Bench(partitions=2)
    bench.append(5, partition=1)
    async with running(bench.runner()):
        await bench.settled(1)
        early = bench.sink.position("usage", 1)
        bench.append(5, partition=1)
        await bench.settled(1)
        bench.sink.rewind("usage", 1, early)
        await bench.settled(1)
    assert bench.sink.count("apply", "Behind") == 0


@pytest.mark.parametrize("answer", [ReadOnly("replica"), Unavailable("timeout")])
async def test_a_store_that_is_away_gets_the_same_batch_again(answer: ReadOnly | Unavailable) -> None:
    bench = Bench()
    bench.append(5)
    bench.sink.answers = [answer] * 4
    async with running(bench.runner()):
        await bench.settled()
    assert bench.sink.count("apply", type(answer).__name__) == 4
    assert bench.sink.count("claim", "Claimed") == 1


async def test_uninitialised_waits_and_claims_again_until_a_rebuild() -> None:
    bench = Bench()
    bench.append(5)
    bench.sink.answer_with(0, Uninitialised("wiped"))
    runner = bench.runner()
    async with running(runner):
        await until(lambda: bench.sink.count("claim", "Uninitialised") > 3)
        assert runner.snapshot()["lanes"][0]["state"] == "uninitialised"
        bench.sink.answer_with(0, None)
        await bench.settled()
        bench.sink.answer_with(0, Uninitialised("torn"))
        bench.append(5)
        await until(lambda: runner.snapshot()["lanes"][0]["reason"] == "torn")
        bench.sink.answer_with(0, None)
        await bench.settled()


async def test_refused_ends_the_process_with_the_reason_and_exit_code_2() -> None:
    bench = Bench(partitions=2)
    bench.sink.answer_with(1, Refused("function version 3, 4 expected"))
    finished = await bench.runner().run()
    assert finished == RefusedToRun("function version 3, 4 expected")
    assert finished.exit_code == 2


async def test_s16_another_partition_count_refuses_to_run() -> None:
    bench = Bench(partitions=2)
    bench.log.recreate("usage", 3)
    assert await bench.runner().run() == RefusedToRun("usage has 3 partitions, 2 expected")


async def test_s16_partitions_added_while_running_refuse_to_go_on() -> None:
    bench = Bench(partitions=3)
    plan_of_two = bench.runner(partitions=2)
    bench.log._counts["usage"] = 2  # as it was when the runner looked
    finished = await plan_of_two.run()
    assert finished == RefusedToRun("partition 2 assigned, 2 expected")
    assert not bench.sink.calls


async def test_a_bug_in_the_interpreter_stops_the_process_and_skips_nothing() -> None:
    class Broken(Everything):
        def interpret(self, records, before=None):  # type: ignore[no-untyped-def]  # as the base
            raise ZeroDivisionError("a bug")

    bench = Bench()
    bench.append(5)
    bench.interpreters["usage"] = Broken()
    finished = await bench.runner().run()
    assert isinstance(finished, Crashed)
    assert finished.exit_code == 1
    assert bench.sink.position("usage", 0) == Position(0, "")


async def test_s21_poison_moves_the_position_with_the_record() -> None:
    """An interpreter that makes nothing of a record still covers it: position and fingerprint are the poison's."""

    class Fussy(Everything):
        def interpret(self, records, before=None):  # type: ignore[no-untyped-def]  # as the base
            made = super().interpret(records, before)
            return type(made)([op for op in made.ops if op.value != b"poison"], made.taken)

    bench = Bench()
    bench.interpreters["usage"] = Fussy()
    bench.append(1)
    bench.log.append("usage", 0, b"poison")
    async with running(bench.runner()):
        await until(lambda: bench.sink.position("usage", 0).offset == 2)
    assert bench.sink.position("usage", 0).last_offset == 1
    assert [effect.offset for effect in bench.applied()] == [0]


async def test_s38_at_end_is_said_only_when_everything_was_applied() -> None:
    bench = Bench()
    bench.append(4)
    bench.sink.answers = [Unavailable("later")] * 5
    async with running(bench.runner()):
        await bench.settled()
        await until(lambda: any(call.at_end for call in bench.sink.calls))
        first_at_end = next(i for i, call in enumerate(bench.sink.calls) if call.at_end)
        assert any(call.answer == "Applied" for call in bench.sink.calls[:first_at_end])


async def test_holes_of_aborted_transactions_are_stepped_over_and_undecided_ones_wait() -> None:
    bench = Bench()
    bench.append(3)
    bench.log.begin("usage", 0)
    bench.append(4)
    async with running(bench.runner()):
        await until(lambda: bench.sink.position("usage", 0).offset == 3)
        bench.log.decide("usage", 0, commit=False)
        await bench.settled()
        assert bench.sink.position("usage", 0).offset == 8
        assert bench.sink.position("usage", 0).last_offset == 2
        bench.log.begin("usage", 0)
        bench.append(4)
        bench.log.decide("usage", 0, commit=True)
        await bench.settled()
        assert len(bench.applied()) == 7


async def test_a_hole_of_the_last_topic_is_stepped_over_without_fetching_it_again() -> None:
    """The client brings a hole once: whichever fetch comes across it must not drop it."""
    bench = Bench(topics=("entries", "usage"))
    bench.append(3)
    async with running(bench.runner()):
        await bench.settled()
        fetched: list[int] = []
        member = bench.members[-1]
        seek = member.seek
        member.seek = lambda *args: (fetched.append(args[2]), seek(*args))[1]  # type: ignore[method-assign]  # a spy
        for _ in range(5):
            bench.sink.gate.clear()
            bench.append(1)
            await until(lambda: member.fetched_to("usage", 0) == bench.log._partitions["usage", 0].end)
            bench.log.hole("usage", 0, 2)  # found by the first look after the call in hand
            bench.sink.gate.set()
            await bench.settled()
        assert fetched == []


async def test_a_quiet_partition_with_open_holds_gets_ticks_and_a_busy_or_settled_one_none() -> None:
    bench = Bench()
    ticks: list[int] = []

    async def ticker(partition: int) -> None:
        ticks.append(partition)
        bench.append(1)

    async with running(bench.runner(ticker=ticker, tick_topic="usage")):
        await until(lambda: bench.sink.count("tend", "Tended") > 5)
        assert not ticks
        bench.sink.open_holds = True
        await until(lambda: len(ticks) >= 2)
        await bench.settled()


async def test_drain_finishes_the_batch_in_hand_commits_and_leaves() -> None:
    bench = Bench()
    bench.append(1000)
    bench.interpreters["usage"].takes = 10
    bench.sink.gate.clear()
    runner = bench.runner()
    task = asyncio.create_task(runner.run())
    await until(lambda: bool(bench.members) and bench.group.generation > 0)
    bench.sink.gate.set()
    await until(lambda: bench.sink.position("usage", 0).offset >= 10)
    bench.sink.gate.clear()
    draining = asyncio.create_task(runner.drain())
    await until(lambda: runner.snapshot()["healthy"] is False)
    bench.sink.gate.set()
    await draining
    assert await task == Drained()
    reached = bench.sink.position("usage", 0).offset
    assert reached < 1000
    assert bench.group.committed == {("usage", 0): reached}
    assert bench.applied() == bench.readable()[:reached]


async def test_drain_is_bounded_when_the_store_never_answers() -> None:
    bench = Bench()
    bench.append(5)
    bench.sink.gate.clear()
    runner = bench.runner(timings=FAST)
    task = asyncio.create_task(runner.run())
    await until(lambda: bench.group.generation > 0)
    async with asyncio.timeout(FAST.drain_seconds + 1):
        await runner.drain()
    assert await task == Drained()


async def test_halted_by_the_sink_stops_one_partition_and_goes_on_after_an_operator() -> None:
    bench = Bench(partitions=2)
    bench.append(3, partition=0)
    bench.append(3, partition=1)
    bench.sink.answer_with(0, Halted("restored from a backup"))
    runner = bench.runner()
    async with running(runner):
        await bench.settled(1)
        assert runner.snapshot()["lanes"][0]["reason"] == "restored from a backup"
        assert not runner.snapshot()["healthy"]
        assert not bench.applied(0)
        bench.sink.answer_with(0, None)
        await bench.settled(0)
