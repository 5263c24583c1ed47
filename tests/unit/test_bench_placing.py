"""A core for the consumer and one for the store, where there are two."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from billing.lab.bench.placing import Places, keep, places


@pytest.mark.parametrize(
    ("ours", "found"), [({0}, Places(None, None)), ({3, 1}, Places(1, 3)), ({0, 1, 2, 3}, Places(0, 1))]
)
def test_the_first_two_cores_that_we_may_use(
    monkeypatch: pytest.MonkeyPatch, ours: set[int], found: Places
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: ours)
    assert places() == found


def test_a_process_is_kept_to_its_core_and_ours_is_not() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        keep(other.pid, None)
        assert os.sched_getaffinity(other.pid) == before
        keep(other.pid, core)
        assert os.sched_getaffinity(other.pid) == {core}
    assert os.sched_getaffinity(0) == before


def test_the_conditions_say_it() -> None:
    assert Places(0, 1).stated == {"cores of their own": "consumer 0, store 1"}
    assert Places(None, None).stated == {"cores of their own": "none"}
