"""What an endpoint is given, and how lists are paged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from billing.lab.sandbox import forms
from billing.lab.sandbox.contracts import Between, ListParams
from billing.lab.sandbox.errors import Answer, Invalid, answer, missing
from billing.lab.sandbox.faults import Fault

P = TypeVar("P", bound=msgspec.Struct)

Render = Callable[[sqlite3.Row], dict[str, Any]]

_MAX_PAGE = 100
_COMPARE = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way through an endpoint. `now` in seconds; `identifier` the id in the path, or ""."""

    db: sqlite3.Connection
    now: int
    url: str
    identifier: str
    fields: list[tuple[str, str]]
    api_version: str
    fault: Fault | None

    def read(self, contract: type[P]) -> P:
        """The parameters; raises Invalid."""
        return forms.read(self.fields, contract)


Endpoint = Callable[[Call], Answer]


def fetch(call: Call, table: str, what: str, identifier: str, param: str, *, in_path: bool = True) -> sqlite3.Row:
    """A row by its object's id; raises Invalid where there is none."""
    row: sqlite3.Row | None = call.db.execute(f"SELECT * FROM {table} WHERE id = ?", (identifier,)).fetchone()
    if row is None:
        raise missing(what, identifier, param, status=404 if in_path else 400)
    return row


def metadata(row: sqlite3.Row) -> dict[str, str]:
    """An object's metadata."""
    return msgspec.json.decode(row["metadata"], type=dict[str, str])


def encode_metadata(given: Mapping[str, str]) -> str:
    """How metadata is stored. An empty value unsets its key."""
    return msgspec.json.encode({key: value for key, value in given.items() if value}).decode()


def page(call: Call, table: str, what: str, render: Render, filters: Mapping[str, object]) -> Answer:
    """A Stripe list, newest first: `starting_after` goes to older objects, `ending_before` back to newer ones."""
    params = call.read(ListParams)
    limit = int(params.limit)
    if not 1 <= limit <= _MAX_PAGE:
        raise Invalid(f"Invalid integer: limit must be from 1 to {_MAX_PAGE}.", param="limit")
    if params.starting_after and params.ending_before:
        raise Invalid("You cannot use both starting_after and ending_before.", param="ending_before")
    conditions, values = _conditions(params, filters)
    backwards = params.ending_before is not None
    if cursor := params.ending_before or params.starting_after:
        name = "ending_before" if backwards else "starting_after"
        conditions.append("seq > ?" if backwards else "seq < ?")
        values.append(fetch(call, table, what, cursor, name, in_path=False)["seq"])
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = call.db.execute(
        f"SELECT * FROM {table}{where} ORDER BY seq {'ASC' if backwards else 'DESC'} LIMIT ?",
        (*values, limit + 1),
    ).fetchall()
    shown = rows[:limit][::-1] if backwards else rows[:limit]
    content = {"object": "list", "url": call.url, "has_more": len(rows) > limit, "data": [render(row) for row in shown]}
    return answer(200, content)


def _conditions(params: ListParams, filters: Mapping[str, object]) -> tuple[list[str], list[object]]:
    wanted = {column: value for column, value in filters.items() if value is not None}
    conditions = [f"{column} = ?" for column in wanted]
    values = list(wanted.values())
    if isinstance(params.created, Between):
        for name, operator in _COMPARE.items():
            if (bound := getattr(params.created, name)) is not None:
                conditions.append(f"created {operator} ?")
                values.append(int(bound))
    elif params.created is not None:
        conditions.append("created = ?")
        values.append(int(params.created))
    return conditions, values
