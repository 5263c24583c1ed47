"""When a look at an account is a finding, and when only a reason to look again."""

from __future__ import annotations

import pytest

from billing.reconcile.compare import Behind, Comparison, Different, Equal, Missing, Unknown
from billing.reconcile.judge import FIRST_AGAIN_S, LONGEST_AGAIN_S, LOST_S, OVERFLOW_S, Judgement, Watch, judge
from billing.reconcile.reconciler_settings import NAME, per_second_from_env
from billing.settings import SettingError


def looks(*seen: tuple[Comparison, float, bool]) -> list[Judgement]:
    """What is judged after each look: (comparison, monotonic seconds, closely)."""
    watch: Watch | None = None
    found = []
    for comparison, at_s, closely in seen:
        judgement, watch = judge(watch, 0, comparison, at_s, closely=closely)
        found.append(judgement)
    return found


AGAIN = Judgement.LOOK_AGAIN


@pytest.mark.parametrize(
    ("comparison", "judgement"),
    [
        (Different(5), Judgement.DIFFERS),
        (Behind("ledger", "entries"), Judgement.LEDGER_BEHIND),
        (Missing("ledger"), Judgement.LEDGER_BEHIND),
    ],
)
def test_s42_two_closer_looks_make_a_finding(comparison: Comparison, judgement: Judgement) -> None:
    assert looks((comparison, 0, False), (comparison, 1, True), (comparison, 2, True)) == [AGAIN, AGAIN, judgement]
    assert looks(*((comparison, at, False) for at in range(50))) == [AGAIN] * 50


def test_r10_an_unreadable_record_and_one_that_stays_beyond_the_bounds_are_findings() -> None:
    unreadable, overflow = Unknown("unreadable"), Unknown("overflow")
    assert looks(*((unreadable, at, True) for at in (0, 1))) == [AGAIN, Judgement.UNREADABLE]
    at_s = [0.0, 1.0, OVERFLOW_S]
    assert looks(*((overflow, at, True) for at in at_s)) == [AGAIN, AGAIN, Judgement.OVERFLOWS]
    assert looks((overflow, 0, True), (Unknown("correcting"), 5, True), (overflow, OVERFLOW_S, True)) == [AGAIN] * 3


@pytest.mark.parametrize("comparison", [Behind("store", "entries"), Missing("store")])
def test_s46_what_the_store_lacks_is_lost_only_after_a_while(comparison: Comparison) -> None:
    at_s = [0.0, 1.0, LOST_S - 0.1, LOST_S]
    assert looks(*((comparison, at, True) for at in at_s)) == [AGAIN, AGAIN, AGAIN, Judgement.LOST_IN_STORE]


@pytest.mark.parametrize("comparison", [Behind("store", "usage"), Behind("ledger", "usage"), Unknown("deriving")])
def test_r1_lateness_and_unknown_are_never_a_finding(comparison: Comparison) -> None:
    assert set(looks(*((comparison, at * 60.0, True) for at in range(100)))) == {AGAIN}


def test_something_else_begins_anew() -> None:
    seen = [(Different(5), 0.0, True), (Behind("store", "usage"), 1.0, True), (Different(5), 2.0, True)]
    assert looks(*seen, (Equal(), 3.0, True), (Different(5), 4.0, True)) == [AGAIN] * 3 + [Judgement.AGREES, AGAIN]


def test_looks_become_rarer() -> None:
    watch: Watch | None = None
    now_s, pauses = 0.0, []
    for _ in range(12):
        _, watch = judge(watch, 3, Unknown("gap"), now_s, closely=True)
        assert watch is not None
        pauses.append(round(watch.again_s - now_s, 3))
        now_s = watch.again_s
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (FIRST_AGAIN_S, LONGEST_AGAIN_S)


def test_the_sweeps_rate_is_a_setting() -> None:
    assert per_second_from_env({}) == 2_000
    assert per_second_from_env({NAME: "50"}) == 50
    for wrong in ("0", "-1", "1.5", "many", "1000001"):
        with pytest.raises(SettingError, match=NAME):
            per_second_from_env({NAME: wrong})
