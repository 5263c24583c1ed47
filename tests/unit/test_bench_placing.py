"""A core for the consumer and one for the store, where there are two that we may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from billing.lab.bench import placing
from billing.lab.bench.placing import Places, at_once, keep, places

NONE = Places(None, None)


@pytest.mark.parametrize(
    ("ours", "threads_of_the_first", "found"),
    [
        ({0}, "0", NONE),
        ({3, 1}, "1", Places(1, 3)),
        ({0, 1, 2, 3}, None, Places(0, 1)),
        ({0, 1, 2, 3}, "0-1", Places(0, 2)),
        ({0, 1, 2, 3}, "0,2", Places(0, 1)),
        ({0, 1}, "0-1", NONE),
    ],
)
def test_two_cores_and_not_two_threads_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ours: set[int], threads_of_the_first: str | None, found: Places
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: ours)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _pid, _cores: None)
    monkeypatch.setattr(placing, "CPUS", tmp_path)
    if threads_of_the_first is not None:
        topology = tmp_path / f"cpu{min(ours)}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{threads_of_the_first}\n")
    assert places() == found


def refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_where_the_system_does_not_let_us_nobody_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert places() == NONE
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert not at_once(os.getpid())


def test_a_process_is_kept_to_its_core_and_ours_is_not() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        keep(other.pid, None)
        assert os.sched_getaffinity(other.pid) == before
        keep(other.pid, core)
        assert os.sched_getaffinity(other.pid) == {core}
        let = at_once(other.pid)
        assert os.sched_getscheduler(other.pid) == (os.SCHED_RR if let else os.SCHED_OTHER)
    assert os.sched_getaffinity(0) == before
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_the_conditions_say_it() -> None:
    assert Places(0, 1).stated == {"kept to cores": "consumer 0, store 1"}
    assert NONE.stated == {"kept to cores": "none"}
