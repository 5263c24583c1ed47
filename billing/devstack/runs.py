"""Folders for runs that keep nothing: one each, and the leftovers of killed runs are cleared away."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from billing.devstack import record
from billing.devstack.errors import DevStackError
from billing.devstack.folders import state_dir
from billing.devstack.locking import try_lock
from billing.devstack.stack import make_server, stop_recorded


@contextmanager
def private_folder(purpose: str, state: Path | None = None) -> Iterator[Path]:
    """A new folder under the state folder, removed at the end. First clears what dead runs have left there.

    The lock beside each folder is held by the run itself, so the system frees it however the run ends: a folder whose
    lock can be had belongs to nobody.
    """
    runs = (state or state_dir()) / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as refused:
        raise DevStackError(f"{runs} cannot be created ({refused.strerror}): set BILLING_STATE_DIR") from refused
    clear_dead_runs(runs)
    folder = runs / f"{purpose}-{os.getpid()}-{secrets.token_hex(3)}"
    lock = try_lock(_lock_of(folder))
    if lock is None:
        raise DevStackError(f"{folder}: a new folder is locked already")
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _lock_of(folder).unlink(missing_ok=True)
        os.close(lock)


def clear_dead_runs(runs: Path) -> None:
    """Stop what runs without an owner have left running, and remove their data."""
    for path in runs.glob("*.lock"):
        lock = try_lock(path)
        if lock is None:
            continue
        try:
            folder = path.with_suffix("")
            for stack in [folder, *(each for each in folder.glob("*") if each.is_dir())]:
                _clear_stack(stack)
            shutil.rmtree(folder, ignore_errors=True)
            path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _clear_stack(folder: Path) -> None:
    found = record.load(folder / "stack.json")
    stop_recorded(found)
    for service in found.services:
        with suppress(DevStackError):
            make_server(service, folder, durable=False).discard()  # PostgreSQL's data may be elsewhere


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".lock")


