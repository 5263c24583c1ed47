"""CatchUp of the lane's own topic and of another, the horizon, and the order of a lane's topics."""

from __future__ import annotations

import asyncio

import pytest
from stream_bench import Bench, running, until

from billing.stream.finished import Crashed
from billing.stream.memory_sink import Everything
from billing.stream.record import Position
from billing.stream.sink import Unavailable


async def nothing_new(topic: str) -> None:
    """Catching up with another topic, which brings nothing."""


async def test_the_first_topic_is_drained_before_the_second_is_read() -> None:
    bench = Bench(topics=("entries", "usage"))
    bench.append(1200, topic="entries")
    bench.append(1200, topic="usage")
    async with running(bench.runner()):
        await bench.settled(topic="usage")
    assert [effect.topic for effect in bench.sink.effects(0)] == ["entries"] * 1200 + ["usage"] * 1200


async def test_catch_up_of_the_lanes_own_topic_drains_it_and_sends_the_same_batch_caught_up() -> None:
    """The entry is appended after the usage was fetched: only the drain can bring it first."""
    bench = Bench(topics=("entries", "usage"))
    bench.append(3, topic="usage")

    def entries_for_usage(batch) -> str | None:  # type: ignore[no-untyped-def]  # Batch[Effect]
        if batch.topic == "usage" and not bench.applied(topic="entries") and not batch.caught_up:
            bench.log.append("entries", 0, b"0")
            bench.log.hole("entries", 0, 2)  # and the end is beyond the last record
            return "entries"
        return None

    bench.sink.catch_up_for = entries_for_usage
    async with running(bench.runner()):
        await bench.settled(topic="usage")
        await bench.settled(topic="entries")
    assert [effect.topic for effect in bench.sink.effects(0)] == ["entries"] + ["usage"] * 3
    applied = [call for call in bench.sink.calls if call.answer == "Applied"]
    assert [call.caught_up for call in applied] == [False, True]  # the entry with the hole behind it, the usage
    assert bench.sink.count("apply", "CatchUp") == 1


async def test_catch_up_of_another_topic_interprets_the_same_records_again() -> None:
    class Catalogue(Everything):
        known = False

        def interpret(self, records, before=None):  # type: ignore[no-untyped-def]  # as the base
            made = super().interpret(records, before)
            ops = [op._replace(value=b"charge" if self.known else b"stray") for op in made.ops]
            return type(made)(ops, made.taken)

    bench = Bench()
    catalogue = Catalogue()
    bench.interpreters["usage"] = catalogue
    bench.append(3)
    asked: list[str] = []

    async def catch_up(topic: str) -> None:
        asked.append(topic)
        if len(asked) == 1:
            await asyncio.sleep(3600)  # the first try meets its deadline
        catalogue.known = True

    bench.sink.catch_up_for = lambda batch: "tariffs" if any(op.value == b"stray" for op in batch.ops) else None
    async with running(bench.runner(catch_up=catch_up)):
        await until(lambda: len(bench.applied()) == 3)
    assert asked == ["tariffs", "tariffs"]
    assert {effect.value for effect in bench.applied()} == {b"charge"}


async def test_s46_a_caught_up_batch_that_cannot_be_taken_yet_is_caught_up_and_interpreted_again() -> None:
    """The ledger has the account, the relay has not published it yet: the same operations would never be taken."""

    class Catalogue(Everything):
        known = False

        def interpret(self, records, before=None):  # type: ignore[no-untyped-def]  # as the base
            made = super().interpret(records, before)
            ops = [op._replace(value=b"charge" if self.known else b"stray") for op in made.ops]
            return type(made)(ops, made.taken)

    bench = Bench()
    catalogue = Catalogue()
    bench.interpreters["usage"] = catalogue
    bench.append(3)
    asked: list[str] = []

    async def catch_up(topic: str) -> None:
        asked.append(topic)
        catalogue.known = len(asked) == 3
        if not catalogue.known:
            bench.sink.answers.append(Unavailable("the catalogue lags behind the ledger"))

    bench.sink.catch_up_for = lambda batch: "tariffs" if any(op.value == b"stray" for op in batch.ops) else None
    async with running(bench.runner(catch_up=catch_up)):
        await until(lambda: len(bench.applied()) == 3)
    assert asked == ["tariffs"] * 3
    assert {effect.value for effect in bench.applied()} == {b"charge"}


async def test_a_caught_up_stray_is_applied_as_it_is() -> None:
    bench = Bench()
    bench.append(700)

    bench.sink.catch_up_for = lambda batch: "tariffs"
    async with running(bench.runner(catch_up=nothing_new)):
        await bench.settled()
    batches = [call.caught_up for call in bench.sink.calls if call.name == "apply"]
    assert batches == [False, True] * 2  # of 500 and 200: each goes again once, whole


@pytest.mark.parametrize("records", [3, 250])  # less than a piece, and more
async def test_s46_a_batch_that_goes_again_has_nothing_that_came_since(records: int) -> None:
    """It was not caught up with: the ledger would wait for the relay over and over, while accounts are opened."""
    bench = Bench()
    bench.append(records)
    sent: list[tuple[bool, int]] = []

    def tariffs_once(batch) -> str | None:  # type: ignore[no-untyped-def]  # Batch[Effect]
        sent.append((batch.caught_up, len(batch.ops)))
        return "tariffs" if len(sent) == 1 else None

    async def meanwhile(_topic: str) -> None:
        bench.append(180)

    bench.sink.catch_up_for = tariffs_once
    async with running(bench.runner(catch_up=meanwhile)):
        await until(lambda: len(bench.applied()) == records + 180)
        await bench.settled()
    assert sent[:2] == [(False, records), (True, records)]
    assert [caught_up for caught_up, _ in sent[2:]] == [False] * len(sent[2:])
    assert sum(count for _, count in sent[1:]) == records + 180


async def test_s05_a_batch_that_was_caught_up_is_not_after_the_sink_has_gone_back() -> None:
    """The other topic has gone back with it, so what was caught up with is missing again."""
    bench = Bench()
    bench.append(3)

    bench.sink.catch_up_for = lambda batch: "tariffs"
    async with running(bench.runner(catch_up=nothing_new)):
        await bench.settled()
        bench.sink.rewind("usage", 0, Position(0, ""))
        bench.append(1)
        await bench.settled()
    answers = [(call.caught_up, call.answer) for call in bench.sink.calls if call.name == "apply"]
    first_again = answers.index((True, "Applied")) + 1
    assert (True, "Applied") not in answers[first_again : answers.index((False, "CatchUp"), first_again)]


async def test_entries_that_come_meanwhile_do_not_make_a_batch_be_caught_up_for_ever() -> None:
    """A lane takes entries first; the usage that goes again is still the one that was caught up."""
    bench = Bench(topics=("entries", "usage"))
    bench.append(3, topic="usage")

    def entries_for_ever(batch) -> str | None:  # type: ignore[no-untyped-def]  # Batch[Effect]
        if batch.topic == "entries":
            bench.append(1, topic="entries")
            return None
        return "entries" if bench.sink.count("apply", "CatchUp") < 5 else None

    bench.append(1, topic="entries")
    bench.sink.catch_up_for = entries_for_ever
    async with running(bench.runner()):
        await until(lambda: len(bench.applied(topic="entries")) > 20)
    assert bench.sink.count("apply", "CatchUp") <= 1


async def test_a_sink_that_asks_for_a_topic_nobody_follows_is_a_bug() -> None:
    bench = Bench()
    bench.append(1)
    bench.sink.catch_up_for = lambda batch: "tariffs"
    assert isinstance(await bench.runner().run(), Crashed)


async def test_behind_while_draining_the_other_topic_keeps_what_is_in_hand() -> None:
    bench = Bench(topics=("entries", "usage"))
    bench.append(3, topic="usage")
    asked = []

    def entries_once(batch) -> str | None:  # type: ignore[no-untyped-def]  # Batch[Effect]
        if batch.topic == "usage" and not asked:
            asked.append(batch)
            bench.append(20, topic="entries")
            bench.sink.lost_replies = 1
            return "entries"
        return None

    bench.sink.catch_up_for = entries_once
    async with running(bench.runner()):
        await bench.settled(topic="usage")
        await bench.settled(topic="entries")
    assert bench.sink.count("apply", "Behind") == 1


async def test_s47_a_session_beyond_the_horizon_holds_the_partition_and_the_records_before_it_are_applied() -> None:
    bench = Bench(partitions=2)
    bench.append(2)
    bench.log.append("usage", 0, b"at:5000")
    bench.append(2)
    bench.append(3, partition=1)
    catalogue = bench.interpreters["usage"]
    catalogue.horizon_ms = 4000
    reached = asyncio.Event()
    waits: list[int] = []

    async def await_horizon(needed_ms: int) -> None:
        waits.append(needed_ms)
        await reached.wait()

    runner = bench.runner(await_horizon=await_horizon)
    async with running(runner):
        await until(lambda: len(waits) >= 3)  # deadline after deadline, it goes on waiting
        await bench.settled(1)
        assert [effect.offset for effect in bench.applied(0)] == [0, 1]
        assert runner.snapshot()["lanes"][0]["state"] == "horizon"
        catalogue.horizon_ms = 6000
        reached.set()
        await bench.settled(0)
    assert set(waits) == {5000}
