"""Writes `schemas/generated/`: `python -m schemas.generate`, or `--check` to verify that it is current."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from schemas import asyncapi, jsonschema, openapi

FOLDER = Path(__file__).parent / "generated"


def render() -> dict[str, str]:
    """File name -> content of everything that is generated."""
    documents = {"asyncapi.json": asyncapi.document(), "openapi.json": openapi.document()}
    files = {**jsonschema.documents(), **documents}
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in files.items()}


def outdated(folder: Path = FOLDER) -> list[str]:
    """Names of files that are missing, different, or no longer generated; empty when all is current."""
    wanted = render()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write(folder: Path = FOLDER) -> None:
    """Write all files and remove those that are no longer generated."""
    folder.mkdir(exist_ok=True)
    wanted = render()
    for path in folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        (folder / name).write_text(content, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Exit code: 0 current or written, 1 out of date, 2 wrong usage."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m schemas.generate [--check]", file=sys.stderr)
        return 2
    if not arguments:
        write()
        return 0
    names = outdated()
    if names:
        print(f"out of date: {', '.join(names)}; run python -m schemas.generate", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
