"""The sandbox's state on disk: SQLite, written through before a request is answered."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import sqlite3
import string
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

_SCHEMA = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")
_LETTERS = string.ascii_letters + string.digits


class StateError(Exception):
    """The state folder cannot be used; one line saying why."""


class Store:
    """One folder of state, held exclusively. `db` is used from one thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _take(folder / "lock")
        self.api_key = _api_key(folder / "api_key")
        self.webhook_secret = "whsec_" + sha256(self.api_key.encode()).hexdigest()
        self.db = sqlite3.connect(folder / "sandbox.sqlite", isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")  # a charge survives kill -9 and power loss
        self.db.execute("PRAGMA foreign_keys = ON")
        self.db.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when it returns."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def close(self) -> None:
        self.db.close()
        os.close(self._lock)


def new_id(prefix: str) -> str:
    """An id like Stripe's: `pi_` and 24 random letters and digits."""
    return f"{prefix}_" + "".join(secrets.choice(_LETTERS) for _ in range(24))


def _take(lock: Path) -> int:
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StateError(f"a sandbox is already running on {lock.parent}") from None
    return handle


def _api_key(file: Path) -> str:
    """The folder's own key, made once."""
    if not file.exists():
        fresh = file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(f"sk_test_{secrets.token_hex(24)}\n", encoding="ascii")
        fresh.replace(file)
    key = file.read_text(encoding="ascii").strip()
    if not re.fullmatch(r"sk_test_[0-9a-f]{48}", key):
        raise StateError(f"{file} is damaged: remove it to get a new key")
    return key
