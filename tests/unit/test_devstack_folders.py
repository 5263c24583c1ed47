"""Where the local services keep their things."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from billing.devstack.errors import DevStackError
from billing.devstack.folders import cache_dir, is_enterable, own_folder, reachable_folder, state_dir
from billing.devstack.locking import locked, try_lock
from billing.devstack.ports import free_port, is_free


def test_the_cache_follows_xdg_then_home(tmp_path: Path) -> None:
    assert cache_dir({"XDG_CACHE_HOME": str(tmp_path / "x"), "HOME": "/nonexistent"}) == tmp_path / "x" / "billing"
    assert cache_dir({"HOME": str(tmp_path)}) == tmp_path / ".cache" / "billing"
    assert cache_dir({"XDG_CACHE_HOME": "relative", "HOME": str(tmp_path)}) == tmp_path / ".cache" / "billing"


def test_without_a_usable_home_the_cache_is_temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").touch()  # root may write anywhere, but not below a file
    temporary = tmp_path / f"billing-cache-{os.getuid()}"
    assert cache_dir({"XDG_CACHE_HOME": str(tmp_path / "file")}) == temporary
    assert cache_dir({"HOME": str(tmp_path / "absent")}) == temporary
    assert cache_dir({}) == temporary
    assert not (tmp_path / "absent").exists()


def test_the_state_folder_is_given_or_the_checkouts_own(tmp_path: Path) -> None:
    assert state_dir({"BILLING_STATE_DIR": str(tmp_path)}) == tmp_path
    assert state_dir({}) == Path(__file__).resolve().parents[2] / ".state"


def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(DevStackError, match="not ours alone"):
        own_folder(tmp_path / "link", mode=0o755)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(DevStackError, match="not ours alone"):
        own_folder(tmp_path / "open", mode=0o755)


def test_what_others_must_reach_leaves_a_closed_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert not is_enterable(tmp_path)
    folder = reachable_folder(tmp_path, "cluster")
    try:
        assert is_enterable(folder)
        assert folder == reachable_folder(tmp_path, "cluster")
        assert folder != reachable_folder(tmp_path / "other", "cluster")
    finally:
        folder.rmdir()
        reachable_folder(tmp_path / "other", "cluster").rmdir()


def test_a_lock_is_had_by_one_and_freed_by_closing(tmp_path: Path) -> None:
    first = try_lock(tmp_path / "lock")
    assert first is not None
    assert try_lock(tmp_path / "lock") is None
    with pytest.raises(DevStackError, match="another process has held"), locked(tmp_path / "lock", what="x", limit_s=0):
        pass
    os.close(first)
    with locked(tmp_path / "lock", what="x", limit_s=0):
        pass


def test_free_ports_stay_clear_of_outgoing_connections() -> None:
    port = free_port()
    assert is_free(port)
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert port < first_outgoing or first_outgoing < 20000
