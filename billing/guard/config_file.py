"""The server's config file against its running values (CONFIG SET without CONFIG REWRITE, a wrong file: S44)."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from billing.guard.observation import FileView

DEFAULTS: Mapping[str, str] = {
    "appendonly": "no",
    "save": "3600 1 300 100 60 10000",
    "maxmemory-policy": "noeviction",
    "replicaof": "",
    "min-replicas-to-write": "0",
}
"""The directives that are compared, with the values that the server takes when its file does not name them."""

_ALIASES = {"slaveof": "replicaof", "min-slaves-to-write": "min-replicas-to-write"}
_INCLUDES_DEEP = 5
_MAX_BYTES = 1 << 20


def compare_file(path: str, running: Mapping[str, str]) -> FileView:
    """The file at `path`, on this machine, against the running values as CONFIG GET answers them."""
    if not path:
        return FileView(unchecked="the server runs without a config file")
    try:
        values = read_values(Path(path))
    except (OSError, ValueError) as error:
        return FileView(unchecked=f"the config file {path}: {error.__class__.__name__}")
    if values.get("port", "6379") != running.get("port"):
        return FileView(unchecked=f"the config file {path} here has another port: not this server's")
    return FileView(differences(running, values))


def differences(running: Mapping[str, str], values: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """Directives that a restart from this file would change: (name, running, file). Those that CONFIG GET did not
    answer are left out."""
    found = []
    for name, default in DEFAULTS.items():
        wanted = values.get(name, default)
        if name in running and running[name] != wanted:
            found.append((name, running[name], wanted))
    return tuple(found)


def read_values(path: Path) -> dict[str, str]:
    """What a server would take from the file and what it includes. Raises OSError, ValueError (not a config file)."""
    values: dict[str, str] = {}
    for words in _directives(path, _INCLUDES_DEEP):
        name = _ALIASES.get(words[0].lower(), words[0].lower())
        value = " ".join(words[1:])
        if name == "save" and value and values.get("save"):
            value = f"{values['save']} {value}"  # lines of `save` add up, `save ""` clears them
        if name == "replicaof" and value.lower() == "no one":
            value = ""
        if name in ("appendonly", "maxmemory-policy"):
            value = value.lower()
        values[name] = value
    return values


def _directives(path: Path, deep: int) -> Iterator[list[str]]:
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES).decode("utf-8", "replace")
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        words = shlex.split(stripped)
        if words and words[0].lower() == "include":
            yield from _included(words[1:], deep)
        elif words:
            yield words


def _included(patterns: list[str], deep: int) -> Iterator[list[str]]:
    for pattern in patterns:
        if deep == 0 or not os.path.isabs(pattern):  # relative to where the server was started: not known here
            raise ValueError("includes")
        for name in sorted(glob.glob(pattern)):
            yield from _directives(Path(name), deep - 1)
