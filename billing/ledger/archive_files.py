"""The files of an archive: JSON lines, gzip; durable before anything is deleted; a manifest beside them."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

MANIFEST = "manifest.json"
_encode = msgspec.json.Encoder().encode


def make_folder(folder: Path) -> None:
    """The folder of an archive, with its parents."""
    folder.mkdir(parents=True, exist_ok=True)


def write_file(folder: Path, prefix: str, rows: Iterable[dict[str, Any]]) -> tuple[str, str]:
    """Write the rows; the file's name and its SHA-256. The name has part of the hash: the same rows, the same file."""
    content = gzip.compress(b"".join(_encode(row) + b"\n" for row in rows), compresslevel=6, mtime=0)
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"{prefix}-{sha256[:16]}.jsonl.gz"
    _write_durably(folder / name, content)
    return name, sha256


def read_back(path: Path, sha256: str, rows: int) -> None:
    """Raises OSError where the file is not what was written."""
    problem = problem_of(path, sha256, rows)
    if problem is not None:
        raise OSError(f"{path}: {problem}")


def problem_of(path: Path, sha256: str, rows: int) -> str | None:
    """Why the file is not the archive of `rows` sessions with this hash; None when it is."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    if hashlib.sha256(content).hexdigest() != sha256:
        return "its SHA-256 differs"
    if gzip.decompress(content).count(b"\n") != rows:
        return f"it does not have {rows} sessions"
    return None


def write_manifest(folder: Path, archives: list[dict[str, Any]]) -> None:
    """What the ledger says about its archives, for whoever finds the folder without the ledger."""
    _write_durably(folder / MANIFEST, msgspec.json.format(_encode(archives)) + b"\n")


def _write_durably(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
