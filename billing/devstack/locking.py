"""File locks that the system releases when their owner dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from billing.devstack.errors import DevStackError


def try_lock(path: Path) -> int | None:
    """Take the lock without waiting: a descriptor to keep (closing it releases), or None when another has it.

    Safe against another process removing the folder meanwhile: a lock on a removed file counts as not taken.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            return descriptor
    except OSError:  # held by another, or removed
        pass
    os.close(descriptor)
    return None


@contextmanager
def locked(path: Path, *, what: str, limit_s: float) -> Iterator[None]:
    """Hold the lock; wait for its owner at most `limit_s`, then raise DevStackError saying what could not be had."""
    deadline = time.monotonic() + limit_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise DevStackError(f"{what}: another process has held {path} for {limit_s:.0f} s")
        time.sleep(0.1)
    try:
        yield
    finally:
        os.close(descriptor)
