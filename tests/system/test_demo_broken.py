"""`billing demo --kill` and `--wipe`: consumers killed at random, and July 2013 in mid-run, with recharges going on."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from demo_harness import running_demo

from billing.devstack.services import Services

OWN_REDIS = {"BILLING_DEVSTACK": "process"}


def _with_own_redis(services: Services) -> dict[str, str]:
    """The given Kafka and PostgreSQL, and a Redis that may be wiped."""
    return {**services.environ, "BILLING_REDIS_URL": "", **OWN_REDIS}


async def _passes(tmp_path: Path, environ: Mapping[str, str], *options: str, timeout_seconds: float) -> Any:
    """The report of a demo with exit code 0."""
    report = tmp_path / "report.json"
    async with running_demo(tmp_path, *options, "--report", str(report), environ=environ) as demo:
        assert await demo.ended(timeout_seconds) == 0, demo.output
    found = json.loads(report.read_text())
    assert found["ok"] is True
    assert set(found["checks"].values()) == {True}
    return found


def _wiped_soundly(found: Any) -> None:
    wiped = found["wiped"]
    assert 0 < wiped["struck"] < wiped["recovering"] < wiped["recovered"]
    assert found["checks"].keys() >= {
        "wiped_balances_are_unknown",
        "wiped_nobody_was_charged",
        "wiped_nobody_was_suspended",
    }
    assert found["recharges"]["refused"]["store_unhealthy"] > 0
    assert found["recharges"]["succeeded"] > 0


@pytest.mark.slow
async def test_s04_consumers_killed_at_random_come_back_and_every_check_holds(
    services: Services, tmp_path: Path
) -> None:
    options = ("--seconds", "5", "--rate", "800", "--kill", "random", "--seed", "5")
    found = await _passes(tmp_path, services.environ, *options, timeout_seconds=150)
    assert len(found["killed"]) >= 3
    assert {each["exit_code"] for each in found["restarted"]} == {-signal.SIGKILL}
    assert found["recharges"]["succeeded"] > 0


async def test_s08_s44_an_empty_read_only_replica_of_itself_charges_and_suspends_nobody(
    services: Services, tmp_path: Path
) -> None:
    picture = tmp_path / "wipe.png"
    options = ("--seconds", "6", "--rate", "800", "--wipe", "--seed", "6", "--picture", str(picture))
    _wiped_soundly(await _passes(tmp_path, _with_own_redis(services), *options, timeout_seconds=150))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
async def test_s08_a_wiped_namespace_of_a_given_redis_charges_nobody(services: Services, tmp_path: Path) -> None:
    options = ("--seconds", "10", "--rate", "1500", "--wipe", "--seed", "7")
    found = await _passes(tmp_path, services.environ, *options, timeout_seconds=240)
    assert found["checks"]["wiped_nobody_was_charged"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["8", "9"])
async def test_s08_wiped_while_consumers_are_killed(services: Services, tmp_path: Path, seed: str) -> None:
    options = ("--seconds", "20", "--rate", "1500", "--wipe", "--kill", "random", "--seed", seed)
    found = await _passes(tmp_path, _with_own_redis(services), *options, timeout_seconds=300)
    _wiped_soundly(found)
    assert len(found["killed"]) >= 4
