"""The demo's keeper: consumers that end are started again, with back-off, and not for ever."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from billing.lab.keeper import MOST_IN_A_ROW, Restart, keeping, killings
from billing.lab.processes import Process
from billing.lab.supervise import WITH_RECHARGE, ConsumerFailed, Supervisor
from billing.lab.waiting import until
from billing.settings import Settings

SETTINGS = Settings("127.0.0.1:1", "redis://127.0.0.1:1/0", "postgresql://127.0.0.1:1/none")


def _supervisor(folder: Path, code: str) -> Supervisor:
    """One consumer, which runs `code` instead of itself."""
    supervisor = Supervisor(SETTINGS, folder, ("relay",))
    process = Process("relay", [sys.executable, "-c", code], {}, folder / "relay.log")
    consumer = supervisor.consumers["relay"]
    consumer._command, consumer._environ = process._command, process._environ
    consumer.start()
    return supervisor


async def test_one_that_is_killed_is_started_again_and_named(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = _supervisor(tmp_path, "import time; time.sleep(60)")
    try:
        async with keeping(supervisor, said.append) as keeper:
            first = supervisor.consumers["relay"].pid
            keeper.crash("relay")
            await until(lambda: bool(keeper.restarts), "the restart")
            assert supervisor.consumers["relay"].running
            assert supervisor.consumers["relay"].pid != first
            (restart,) = keeper.restarts
            assert restart.killed
            assert restart.down_seconds < 5
            assert said == [f"started {restart}"]
            supervisor.check()  # a run goes on without it for a while
    finally:
        await supervisor.kill("relay")


async def test_one_that_was_asked_to_end_stays_away(tmp_path: Path) -> None:
    supervisor = _supervisor(tmp_path, "import time; time.sleep(60)")
    async with keeping(supervisor, lambda _: None) as keeper:
        await supervisor.kill("relay")
        other = _supervisor(tmp_path / "other", "import time; time.sleep(60)")
        async with keeping(other, lambda _: None) as beside:
            beside.crash("relay")
            await until(lambda: bool(beside.restarts), "the restart of the other")
            await other.kill("relay")
        assert keeper.restarts == []
        assert not supervisor.consumers["relay"].running


async def test_one_that_ends_again_and_again_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.lab.keeper.LIMIT_SECONDS", 0.01)
    supervisor = _supervisor(tmp_path, "import sys; sys.exit('no such setting')")
    with pytest.raises(ExceptionGroup) as raised:
        async with keeping(supervisor, lambda _: None) as keeper:
            await until(lambda: len(keeper.restarts) > MOST_IN_A_ROW, "more restarts than there may be")
    failure = raised.value.exceptions[0]
    assert isinstance(failure, ConsumerFailed)
    assert "no such setting" in str(failure)


def test_a_restart_says_how_it_ended() -> None:
    assert str(Restart("relay", -signal.SIGKILL, 0.31)) == "relay (SIGKILL, away for 0.3 s)"
    assert str(Restart("relay", 1, 2.0)) == "relay (exit code 1, away for 2.0 s)"
    assert not Restart("relay", 1, 2.0).killed


def test_killings_are_the_same_for_the_same_seed_and_reach_everyone() -> None:
    assert killings("", WITH_RECHARGE, 30, 1) == []
    assert killings("relay", WITH_RECHARGE, 30, 1) == [(15, "relay")]
    random = killings("random", WITH_RECHARGE, 30, 1)
    assert random == killings("random", WITH_RECHARGE, 30, 1) != killings("random", WITH_RECHARGE, 30, 2)
    assert 5 <= len(random) <= 14
    assert all(0 < at < 30 for at, _ in random)
    assert {name for seed in range(10) for _, name in killings("random", WITH_RECHARGE, 30, seed)} == set(WITH_RECHARGE)
    assert len(killings("random", WITH_RECHARGE, 6, 1)) >= 2
