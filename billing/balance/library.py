"""The function library `billing`: Lua files beside this one, joined into one source and loaded by `billing migrate`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

FUNCTION_VERSION = "5"
"""Version of the functions and of what they store. Raise it with every change of their arguments, answers or records:
a process that meets another version refuses to run (S14)."""

LIBRARY = "billing"


@cache
def source(library: str = LIBRARY, version: str = FUNCTION_VERSION) -> str:
    """The text for FUNCTION LOAD. Function names begin with "<library>_"; tests load variants under other names."""
    folder = files(__package__) / "functions"
    parts = sorted((part for part in folder.iterdir() if part.name.endswith(".lua")), key=lambda part: part.name)
    head = f"#!lua name={library}\nlocal LIBRARY, VERSION = '{library}', '{version}'\n"
    return head + "\n".join(part.read_text(encoding="utf-8") for part in parts)
