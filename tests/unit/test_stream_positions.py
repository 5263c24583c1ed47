"""Fingerprints: a log that is not the one the sink's position was taken in halts the partition."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stream_bench import FAST, Bench, running, until

from billing.stream.log import Bounds
from billing.stream.memory_sink import Everything
from billing.stream.preparing import PIECE_RECORDS
from billing.stream.record import Position, StoredRecord, fingerprint
from billing.stream.verify import AtEndOfRetention, Matches, Mismatch, Verdict, judge

NINE = StoredRecord("usage", 0, 9, 1234, b"k", b"v")
MARK = fingerprint(NINE)


@pytest.mark.parametrize(
    ("position", "bounds", "record", "verdict"),
    [
        # nothing consumed yet
        (Position(0, ""), Bounds(0, 0), None, Matches(None)),
        (Position(0, ""), Bounds(0, 10), None, Matches(None)),
        (Position(0, ""), Bounds(3, 10), None, Mismatch("position 0 is below the log's start 3")),
        (Position(5, ""), Bounds(0, 4), None, Mismatch("position 5 is beyond the log's end 4")),
        # the last record is there
        (Position(10, MARK), Bounds(0, 10), NINE, Matches(1234)),
        (Position(12, MARK), Bounds(9, 12), NINE, Matches(1234)),  # a hole behind it was stepped over
        (Position(10, MARK), Bounds(0, 20), NINE._replace(value=b"w"), Mismatch("record 9 differs")),
        (Position(10, MARK), Bounds(0, 20), NINE._replace(key=None), Mismatch("record 9 differs")),
        (Position(10, MARK), Bounds(0, 20), None, Mismatch("record 9 is missing from the log")),
        # it is not: beyond the end wins over everything, retention is fine only at the end
        (Position(10, MARK), Bounds(0, 9), None, Mismatch("position 10 is beyond the log's end 9")),
        (Position(10, MARK), Bounds(0, 0), None, Mismatch("position 10 is beyond the log's end 0")),
        (Position(10, MARK), Bounds(10, 10), None, AtEndOfRetention()),
        (Position(10, MARK), Bounds(10, 11), None, Mismatch("record 9 was removed and the log goes on at 10")),
        (Position(10, MARK), Bounds(11, 20), None, Mismatch("position 10 is below the log's start 11")),
    ],
)
def test_the_rules_in_their_order(
    position: Position, bounds: Bounds, record: StoredRecord | None, verdict: Verdict
) -> None:
    found = judge(position, bounds, record)
    if isinstance(verdict, Mismatch):
        assert isinstance(found, Mismatch)
        assert found.reason.startswith(verdict.reason)
    else:
        assert found == verdict


def test_a_record_that_comes_between_the_last_fetch_and_the_regular_check_is_no_loss() -> None:
    """Retention removed everything, we held the end, and one record was appended just now."""
    assert judge(Position(10, MARK), Bounds(10, 11), None, held=True) == AtEndOfRetention()
    assert isinstance(judge(Position(10, MARK), Bounds(11, 11), None, held=True), Mismatch)


async def _consumed(bench: Bench, count: int) -> None:
    bench.append(count)
    async with running(bench.runner()):
        await bench.settled()


async def _halts(bench: Bench, reason: str, *, partition: int = 0) -> None:
    """A runner halts the partition for this reason, applies nothing, and marks it in the sink."""
    before = list(bench.sink.effects(partition))
    runner = bench.runner()
    async with running(runner):
        await until(lambda: any(lane["state"] == "halted" for lane in runner.snapshot()["lanes"]))
        lane = runner.snapshot()["lanes"][partition]
        assert reason in lane["reason"]
        await until(lambda: bench.sink.count("claim", "Halted") > 1)  # it stays so, and is looked at again
    assert bench.sink.effects(partition) == before


async def test_s06_a_position_below_the_logs_start_halts_and_skips_nothing() -> None:
    bench = Bench()
    await _consumed(bench, 5)
    bench.append(10)
    bench.log.retain("usage", 0, 8)
    await _halts(bench, "below the log's start 8")


async def test_s15_a_recreated_topic_halts() -> None:
    bench = Bench()
    await _consumed(bench, 5)
    bench.log.recreate("usage", 1)
    for _ in range(9):
        bench.log.append("usage", 0, b"another topic")
    await _halts(bench, "record 4 differs")


async def test_s17_a_log_truncated_and_regrown_halts_at_the_next_claim() -> None:
    bench = Bench()
    await _consumed(bench, 10)
    bench.log.truncate("usage", 0, 7)
    for _ in range(5):
        bench.log.append("usage", 0, b"another leader's record")
    await _halts(bench, "record 9 differs")


async def test_s17_a_log_truncated_and_regrown_beyond_the_position_while_running_is_found_before_it_is_read() -> None:
    """The client reads on at its position as if nothing had happened; only the leader is another one."""
    bench = Bench(topics=("entries", "usage"), partitions=2)
    runner = bench.runner()
    bench.append(5, topic="usage", partition=1)
    async with running(runner):
        await bench.settled(1)
        for _ in range(10):
            bench.log.append("usage", 0, b"first")
        await bench.settled(0)
        bench.log.truncate("usage", 0, 5)
        for _ in range(9):
            bench.log.append("usage", 0, b"another leader's record")
        await until(lambda: bench.sink.count("apply", "Applied") > 0 and _halted(runner) == [0])
        assert "differs" in runner.snapshot()["lanes"][0]["reason"]
        bench.append(3, topic="usage", partition=1)
        await bench.settled(1)
    assert len(bench.applied(0)) == 10


async def test_s17_a_log_cut_between_two_pieces_of_a_batch_ends_the_batch_and_halts() -> None:
    """What the client had of the old log is applied up to there; nothing of the other log joins on to it."""

    class Cutting(Everything):
        def interpret(self, records, before=None):  # type: ignore[no-untyped-def]  # as the base
            if not self.offered:
                bench.log.truncate("usage", 0, 40)
                for _ in range(300):
                    bench.log.append("usage", 0, b"another leader's record")
            return super().interpret(records, before)

    bench = Bench()
    bench.interpreters["usage"] = Cutting()
    bench.append(250)
    runner = bench.runner()
    async with running(runner):
        await until(lambda: _halted(runner) == [0])
        assert f"record {PIECE_RECORDS - 1} differs" in runner.snapshot()["lanes"][0]["reason"]
    assert [effect.value for effect in bench.applied()] == [b"%d" % n for n in range(PIECE_RECORDS)]


async def test_another_leader_of_the_first_topic_is_looked_at_while_the_second_has_a_backlog() -> None:
    """Else entries would wait for a moment without usage: what is taken of them is dropped until they are verified."""

    class Endless(Everything):
        def interpret(self, records, before=None):  # type: ignore[no-untyped-def]  # as the base
            if len(bench.applied()) < 20_000:
                bench.append(len(records))
            return super().interpret(records, before)

    bench = Bench(topics=("entries", "usage"))
    bench.interpreters["usage"] = Endless()
    bench.append(3, topic="entries")
    runner = bench.runner(timings=replace(FAST, verify_seconds=3600.0))
    async with running(runner):
        await bench.settled(topic="entries")
        bench.append(300, topic="usage")
        await until(lambda: len(bench.applied()) > 300)
        bench.log._partitions["entries", 0].elections += 1
        bench.append(2, topic="entries")
        await until(lambda: len(bench.applied(topic="entries")) == 5)
        assert len(bench.applied()) < 20_000


async def test_s17_a_truncated_log_that_is_shorter_is_out_of_range_and_halts() -> None:
    bench = Bench()
    runner = bench.runner()
    async with running(runner):
        bench.append(10)
        await bench.settled()
        bench.log.truncate("usage", 0, 4)
        await until(lambda: _halted(runner) == [0])
        assert "beyond the log's end 4" in runner.snapshot()["lanes"][0]["reason"]


async def test_s18_retention_shorter_than_the_lag_halts() -> None:
    bench = Bench()
    await _consumed(bench, 5)
    bench.append(10)
    bench.log.retain("usage", 0, 5)
    await _halts(bench, "record 4 was removed and the log goes on at 5")


async def test_s18_a_new_consumer_never_begins_above_the_logs_first_record() -> None:
    bench = Bench()
    bench.append(10)
    bench.log.retain("usage", 0, 3)
    await _halts(bench, "position 0 is below the log's start 3")


async def test_retention_up_to_a_position_at_the_end_goes_on() -> None:
    bench = Bench()
    await _consumed(bench, 5)
    bench.log.retain("usage", 0, 5)
    runner = bench.runner()
    async with running(runner):
        await until(lambda: any(lane["state"] == "running" for lane in runner.snapshot()["lanes"]))
        bench.append(3)
        await until(lambda: bench.sink.position("usage", 0).offset == 8)
    assert [effect.offset for effect in bench.applied()] == list(range(8))


async def test_a_halt_of_one_topic_stops_the_partitions_other_topic_too() -> None:
    bench = Bench(topics=("entries", "usage"), partitions=2)
    bench.append(5, topic="entries")
    async with running(bench.runner()):
        await bench.settled(topic="entries")
    bench.log.truncate("entries", 0, 1)
    bench.append(5, topic="usage")
    bench.append(5, topic="usage", partition=1)
    runner = bench.runner()
    async with running(runner):
        await bench.settled(1)
        await until(lambda: _halted(runner) == [0])
    assert not bench.applied(0, "usage")


async def test_kafka_being_away_is_waited_for_and_never_a_halt() -> None:
    bench = Bench()
    await _consumed(bench, 5)
    bench.log.away = True
    runner = bench.runner()
    async with running(runner):
        await until(lambda: not runner.snapshot()["joined"])
        bench.log.away = False
        await until(lambda: bench.sink.count("claim", "Claimed") == 2)
        bench.log.away = True
        await until(lambda: runner.snapshot()["kafka_away"])
        bench.append(5)
        bench.log.away = False
        await bench.settled()
        assert not _halted(runner)


def _halted(runner) -> list[int]:  # type: ignore[no-untyped-def]  # Runner of any effect
    return [lane["partition"] for lane in runner.snapshot()["lanes"] if lane["state"] == "halted"]
