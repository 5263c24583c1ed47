"""How far a balance is behind the log: from positions and the ends that were read."""

from __future__ import annotations

from billing.admission.lag import LogEnds
from billing.stream.record import Position
from schemas.admission import Lag


def at(usage: int, entries: int = 9) -> dict[str, Position]:
    return {"usage": Position(usage, ""), "entries": Position(entries, "")}


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def ends(usage: int, entries: int = 9) -> dict[tuple[str, int], int]:
    return {("usage", 0): usage, ("entries", 0): entries, ("usage", 1): 5, ("entries", 1): 5}


def test_the_age_is_of_the_newest_ends_that_the_balance_has_reached() -> None:
    clock = Clock()
    log = LogEnds(10_000, clock=clock)
    assert log.lag(0, at(0)) is None
    log.saw(ends(40), ago_s=8.0)
    for usage in (50, 60, 70):
        log.saw(ends(usage))
        clock.now_s += 1
    assert log.lag(0, at(70)) == log.lag(0, at(71)) == Lag(records=0, age_ms=1_000)
    assert log.lag(0, at(69)) == Lag(records=1, age_ms=2_000)
    assert log.lag(0, at(60)) == Lag(records=10, age_ms=2_000)
    assert log.lag(0, at(59)) == Lag(records=11, age_ms=3_000)
    assert log.lag(0, at(40)) == Lag(records=30, age_ms=11_000)
    assert log.lag(0, at(39)) == Lag(records=31, age_ms=None)
    assert log.lag(0, at(59, entries=8)) == Lag(records=12, age_ms=None)  # both topics count
    assert log.lag(1, at(5)) == Lag(records=0, age_ms=1_000)


def test_what_is_older_than_the_limit_is_forgotten_but_not_the_newest() -> None:
    clock = Clock()
    log = LogEnds(10_000, clock=clock)
    for usage in (50, 60):
        log.saw(ends(usage))
        clock.now_s += 6
    assert log.lag(0, at(50)) == Lag(records=10, age_ms=12_000)
    log.saw(ends(60))
    assert log.lag(0, at(50)) == Lag(records=10, age_ms=None)
    clock.now_s += 60  # Kafka is away: nobody knows what is missing
    assert log.lag(0, at(60)) == Lag(records=0, age_ms=60_000)


def test_a_log_that_became_shorter_says_nothing_of_the_time_before() -> None:
    log = LogEnds(10_000, clock=Clock())
    log.saw(ends(50), ago_s=5.0)
    log.saw(ends(20))
    assert log.lag(0, at(20)) == Lag(records=0, age_ms=0)
    assert log.lag(0, at(19)) == Lag(records=1, age_ms=None)
