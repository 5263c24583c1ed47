"""The server's config file read as the server would, and held against the running values."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing.guard.config_file import compare_file, read_values

RUNNING = {
    "appendonly": "yes",
    "save": "",
    "maxmemory-policy": "noeviction",
    "replicaof": "",
    "min-replicas-to-write": "0",
    "port": "6379",
}


def written(folder: Path, text: str) -> str:
    path = folder / "redis.conf"
    path.write_text(text)
    return str(path)


def test_s44_equal_values_are_no_difference(tmp_path: Path) -> None:
    path = written(tmp_path, '# ours\n\nAppendOnly YES\nsave ""\nslaveof no one\nrequirepass "a # b"\n')
    assert compare_file(path, RUNNING).differs == ()


def test_s44_what_a_restart_would_change_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "replicaof 127.0.0.1 6379\nsave 900 1\nsave 300 10\nmin-slaves-to-write 1\n")
    assert compare_file(path, RUNNING).differs == (
        ("appendonly", "yes", "no"),  # the server's default
        ("save", "", "900 1 300 10"),
        ("replicaof", "", "127.0.0.1 6379"),
        ("min-replicas-to-write", "0", "1"),
    )


def test_a_file_without_save_means_the_servers_own_snapshots(tmp_path: Path) -> None:
    path = written(tmp_path, "appendonly yes\n")
    assert compare_file(path, {**RUNNING, "save": "3600 1 300 100 60 10000"}).differs == ()
    assert compare_file(path, RUNNING).differs == (("save", "", "3600 1 300 100 60 10000"),)


def test_an_empty_save_clears_the_lines_above_it(tmp_path: Path) -> None:
    assert read_values(Path(written(tmp_path, 'save 900 1\nsave ""\nsave 60 5\n')))["save"] == "60 5"


def test_includes_are_followed_where_they_are_absolute(tmp_path: Path) -> None:
    (tmp_path / "local.conf").write_text("appendonly no\n")
    path = written(tmp_path, f'appendonly yes\nsave ""\ninclude {tmp_path}/*.conf.d/x {tmp_path}/local.conf\n')
    assert compare_file(path, RUNNING).differs == (("appendonly", "yes", "no"),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("include local.conf\n", "ValueError"),
        ("include {path}\n", "ValueError"),  # includes itself
        ('requirepass "unbalanced\n', "ValueError"),
        ("port 7000\n", "another port"),
        (None, "FileNotFoundError"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "redis.conf"
    if text is not None:
        path.write_text(text.format(path=path))
    view = compare_file(str(path), RUNNING)
    assert view.differs == ()
    assert why in view.unchecked


def test_no_file_at_all_is_said() -> None:
    assert compare_file("", RUNNING).unchecked == "the server runs without a config file"
