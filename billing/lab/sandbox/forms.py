"""Form encoding with brackets, as Stripe's clients send it: `metadata[account]=a1&types[0]=card&types[]=card`."""

from __future__ import annotations

import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from billing.lab.sandbox.errors import Invalid

P = TypeVar("P", bound=msgspec.Struct)

_MAX_FIELDS = 500
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_AT = re.compile(r" - at `\$\.?([^`]*)`")


def pairs(encoded: str) -> list[tuple[str, str]]:
    """Names and values in the order sent. Raises Invalid on more than 500 of them."""
    try:
        return parse_qsl(encoded, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Invalid("Too many parameters.") from None


def nested(fields: list[tuple[str, str]]) -> dict[str, Any]:
    """Brackets to dicts, and dicts of consecutive numbers to lists. Raises Invalid on malformed names."""
    root: dict[str, Any] = {}
    for name, value in fields:
        match = _KEY.fullmatch(name)
        if match is None:
            raise Invalid(f"Invalid parameter name: {name[:100]}")
        path = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        _put(root, path, value)
    return {name: _lists(value) for name, value in root.items()}


def _put(into: dict[str, Any], path: list[str], value: str) -> None:
    for step in path[:-1]:
        inner = into.setdefault(step, {})
        if not isinstance(inner, dict):
            raise Invalid(f"Invalid parameter: {path[0]} is both a value and a hash.", param=path[0])
        into = inner
    into[path[-1] or str(len(into))] = value


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and list(value) == [str(i) for i in range(len(value))]:
        return [_lists(item) for item in value.values()]
    return {name: _lists(item) for name, item in value.items()}


def read(fields: list[tuple[str, str]], contract: type[P]) -> P:
    """Check against a Struct whose leaves are strings. Raises Invalid naming the parameter, with Stripe's code."""
    try:
        return msgspec.convert(nested(fields), contract)
    except msgspec.ValidationError as trouble:
        raise _explain(str(trouble)) from None


def _explain(trouble: str) -> Invalid:
    at = _AT.search(trouble)
    where = at[1].replace(".", "[", 1) + "]" if at and "." in at[1] else (at[1] if at else "")
    what = _AT.sub("", trouble)
    if found := re.search(r"unknown field `([^`]*)`", what):
        name = f"{where}[{found[1]}]" if where else found[1]
        return Invalid(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
    if found := re.search(r"missing required field `([^`]*)`", what):
        name = f"{where}[{found[1]}]" if where else found[1]
        return Invalid(f"Missing required param: {name}.", code="parameter_missing", param=name)
    if r"\d" in what:
        return Invalid(f"Invalid integer: {where}", code="parameter_invalid_integer", param=where)
    return Invalid(f"Invalid {where or 'request'}: {what}", param=where or None)
