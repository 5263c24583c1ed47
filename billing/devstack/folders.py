"""Where things are kept: the download cache, the state of this checkout, and what another user must reach."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from billing.devstack.errors import DevStackError

CACHE_NAME = "billing"


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Downloads shared by every checkout: $XDG_CACHE_HOME/billing, else ~/.cache/billing, else a temporary folder."""
    base, home = environ.get("XDG_CACHE_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(base):
        wanted = Path(base)
    elif os.path.isdir(home):  # some users have a home that does not exist
        wanted = Path(home) / ".cache"
    else:
        return _temporary_cache()
    try:
        (wanted / CACHE_NAME).mkdir(parents=True, exist_ok=True)
    except OSError:  # read-only
        return _temporary_cache()
    return wanted / CACHE_NAME if os.access(wanted / CACHE_NAME, os.W_OK | os.X_OK) else _temporary_cache()


def _temporary_cache() -> Path:
    return own_folder(Path(tempfile.gettempdir()) / f"{CACHE_NAME}-cache-{os.getuid()}", mode=0o700)


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """This checkout's own state: $BILLING_STATE_DIR, else .state in the checkout, else in the current folder."""
    given = environ.get("BILLING_STATE_DIR", "").strip()
    if given:
        return Path(given).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[2]
    home = checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()
    return home / ".state"


def is_enterable(folder: Path) -> bool:
    """Whether any user of the machine may enter the folder: every folder on the way has its x bit for others."""
    folder = folder.resolve()
    return all(part.stat().st_mode & stat.S_IXOTH for part in (folder, *folder.parents))


def shared_temp_dir() -> Path:
    """A temporary folder that every user may enter; one that survives a reboot before one that may not."""
    for candidate in (os.environ.get("TMPDIR", ""), "/var/tmp", "/tmp", tempfile.gettempdir()):
        folder = Path(candidate)
        if candidate and folder.is_dir() and os.access(folder, os.W_OK) and is_enterable(folder):
            return folder
    raise DevStackError("no temporary folder that other users may enter: PostgreSQL cannot run under root here")


def reachable_folder(home: Path, name: str) -> Path:
    """`home/name` where every user may enter `home`, else a folder of our own in the temporary folder.

    The latter's name is derived from `home`, so that the same state finds its data again and two states never meet.
    """
    home.mkdir(parents=True, exist_ok=True)
    if is_enterable(home):
        folder = home / name
        folder.mkdir(mode=0o755, exist_ok=True)
        return folder
    digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
    return own_folder(shared_temp_dir() / f"billing-{digest}-{name}", mode=0o755)


def own_folder(folder: Path, *, mode: int) -> Path:
    """Create the folder, or accept it when it is ours alone; one prepared by another user is refused."""
    try:
        folder.mkdir(mode=mode)
        folder.chmod(mode)  # whatever the umask
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise DevStackError(f"{folder} exists and is not ours alone: remove it") from None
    return folder
