"""A jar that is not exactly the listed one keeps Kafka from starting, by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from billing.devstack.errors import DevStackError
from billing.devstack.kafka_jars import class_path
from billing.devstack.versions import KAFKA


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that holds two jars, and their sums beside it."""
    folder = tmp_path / f"kafka-{KAFKA}"
    folder.mkdir()
    lines = []
    for name in ("a-1.jar", "b-2.jar"):
        (folder / name).write_bytes(name.encode())
        lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  org/x/{name}\n")
    (tmp_path / "sums").write_text("".join(lines))
    return tmp_path


def _class_path(cache: Path) -> list[str]:
    return [path.name for path in class_path(print, cache, cache / "sums")]


def test_matching_jars_are_the_class_path_in_listed_order(cache: Path) -> None:
    assert _class_path(cache) == ["a-1.jar", "b-2.jar"]


def test_an_altered_jar_is_refused_by_name(cache: Path) -> None:
    (cache / f"kafka-{KAFKA}" / "b-2.jar").write_bytes(b"B-2.jar")
    with pytest.raises(DevStackError, match=r"b-2\.jar does not match its SHA-256"):
        _class_path(cache)


def test_an_extra_jar_is_refused_by_name(cache: Path) -> None:
    (cache / f"kafka-{KAFKA}" / "evil.jar").write_bytes(b"")
    with pytest.raises(DevStackError, match=r"evil\.jar in .* is not in"):
        _class_path(cache)


def test_a_missing_jar_is_refused_by_name(cache: Path) -> None:
    (cache / f"kafka-{KAFKA}" / "a-1.jar").unlink()
    with pytest.raises(DevStackError, match=r"a-1\.jar is missing"):
        _class_path(cache)
