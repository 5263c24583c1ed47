"""Named, described SQL queries in `sql/*.sql`.

A query begins with a line `-- name: <name>`, followed by comment lines that say what it does and what its
parameters are, then one statement (or several without parameters). `query("accounts.show")` is the query `show` of
`sql/accounts.sql`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_HEADER = re.compile(r"^-- name: ([a-z0-9_]+)$", re.MULTILINE)


@cache
def all_queries() -> dict[str, str]:
    """Every query by "<file>.<name>"; raises ValueError for one without a description or named twice."""
    found: dict[str, str] = {}
    for file in sorted((files("billing.ledger") / "sql").iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        pieces = _HEADER.split(file.read_text(encoding="utf-8"))
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
            full = f"{file.name.removesuffix('.sql')}.{name}"
            if full in found or not text.lstrip().startswith("-- "):
                raise ValueError(f"query {full} is named twice or has no description")
            found[full] = text.strip().removesuffix(";")
    return found


def query(name: str) -> str:
    """The text of a query; KeyError when there is none of that name."""
    return all_queries()[name]
