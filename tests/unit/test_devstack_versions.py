"""One place pins the services; the lock files and the package's requirements follow it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from billing.devstack import versions
from billing.devstack.kafka_jars import read_sums

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements/runtime.txt", "requirements/dev.txt")


def test_wheels_are_pinned_as_versions_says() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name, version in versions.WHEELS.items():
        assert f"{name}=={version}" in wanted


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_every_wheel_hashed_and_name_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    for name, version in versions.WHEELS.items():
        assert re.search(rf"^{name}=={re.escape(version)} \\$", text, re.MULTILINE)
    packages = re.findall(r"^[a-z0-9][^ ]*==.*\n", text, re.MULTILINE)
    hashed = re.findall(r"^[a-z0-9][^ ]*==.* \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert len(packages) == len(hashed) > 30
    assert not re.search(r"://|index-url|find-links|file:|/home|/root|/tmp", text)


def test_what_runs_is_locked_alike_for_developers() -> None:
    locked = re.compile(r"^[a-z0-9][^ ]*==[^ ]+", re.MULTILINE)
    runtime, dev = (set(locked.findall((ROOT / lock).read_text())) for lock in LOCKS)
    assert runtime <= dev


def test_every_kafka_jar_has_a_sum() -> None:
    sums = read_sums()
    assert f"org/apache/kafka/kafka_2.13/{versions.KAFKA}/kafka_2.13-{versions.KAFKA}.jar" in sums
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in sums.values())
    assert len({Path(path).name for path in sums}) == len(sums)
