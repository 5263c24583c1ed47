"""Packages that are installed for the programs they carry, not for their Python code."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from billing.devstack.errors import DevStackError


def wheel_folder(package: str) -> Path:
    """Where the package is installed. It is not imported: some do work, or warn, when they are."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise DevStackError(f"the package {package.replace('_', '-')} is not installed: run `make install`")
    return Path(spec.origin).parent
