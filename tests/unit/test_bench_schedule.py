"""An open loop's schedule: every record once, at the first tick that is not before its moment."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.lab.bench.schedule import Schedule

SCHEDULES = st.builds(Schedule, st.integers(1, 200_000).map(float), st.integers(1, 16))


def test_partitions_take_turns() -> None:
    schedule = Schedule(1_000.0, 4)
    moments = [schedule.due_s(partition, number) for number in range(3) for partition in range(4)]
    assert moments == [turn / 1_000 for turn in range(12)]


@settings(deadline=None)
@given(SCHEDULES, st.integers(0, 15), st.integers(1, 2_000), st.sampled_from([0.001, 0.01, 0.25]))
def test_every_record_is_sent_once_at_the_first_tick_that_is_not_before_it(
    schedule: Schedule, partition: int, records: int, tick_s: float
) -> None:
    partition %= schedule.partitions
    records = min(records, max(1, int(10 * schedule.per_second / schedule.partitions)))  # of ten seconds at most
    sent = 0
    for tick, due in schedule.ticks(partition, records, tick_s):
        assert due > sent
        assert schedule.due_s(partition, sent) >= (tick - 1) * tick_s - 1e-9
        assert schedule.due_s(partition, due - 1) <= tick * tick_s + 1e-9
        sent = due
    assert sent == records


@given(SCHEDULES, st.integers(0, 15), st.integers(0, 10_000))
def test_nothing_is_due_before_the_first_moment(schedule: Schedule, partition: int, number: int) -> None:
    partition %= schedule.partitions
    moment = schedule.due_s(partition, number)
    assert schedule.count_by(partition, moment - 0.5 / schedule.per_second) == number
    assert schedule.count_by(partition, moment + 0.5 / schedule.per_second) == number + 1
