"""From query parameters to a query of the contract, or the first parameter that is wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from schemas.admission import (
    QUERY_TYPES,
    AuthorizationQuery,
    CallDestination,
    CallQuery,
    ItemQuery,
    MessageDestination,
    MmsQuery,
    Quantity,
    SmsQuery,
)
from schemas.catalogue import TariffKind
from schemas.common import MAX_COUNT, Id
from schemas.usage import CallDirection

_NUMBER = "+ and 7 to 15 digits, the first not 0, for example +442079460000 (in a URL, + is %2B)"
_ACCEPTED: dict[Any, str] = {
    CallDestination: f"must be {_NUMBER}",
    MessageDestination: f"must be {_NUMBER}; or short: and 3 to 12 digits, for example short:12345",
    CallDirection: "must be inbound or outbound",
    Id: "must be 1 to 64 of A-Z a-z 0-9 . _ : -",
    Quantity: f"must be a whole number from 1 to {MAX_COUNT}",
}
"""What each type of parameter accepts, in words: its pattern would be one to decipher."""

_WHOLE = re.compile(r"[1-9][0-9]{0,9}").fullmatch


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """`field` is missing, repeated, not known or wrong."""

    field: str
    problem: str


_Fields: TypeAlias = dict[str, msgspec.structs.FieldInfo]
_KIND_OF: dict[type[AuthorizationQuery], TariffKind] = {
    CallQuery: "call",
    SmsQuery: "sms",
    MmsQuery: "mms",
    ItemQuery: "item",
}
_BY_KIND: dict[str, tuple[type[AuthorizationQuery], _Fields]] = {
    _KIND_OF[query]: (query, {field.name: field for field in msgspec.structs.fields(query)}) for query in QUERY_TYPES
}
_KINDS = ", ".join(_BY_KIND)


def kind_of(query: AuthorizationQuery) -> TariffKind:
    """The tariff's kind of usage that is asked about."""
    return _KIND_OF[type(query)]


def quantity_of(query: SmsQuery | MmsQuery | ItemQuery) -> int:
    """Segments of a message, units of an item."""
    return query.quantity if isinstance(query, ItemQuery) else query.segments


def parse_account(text: str) -> Malformed | None:
    """Why `text` is no account id; None where it is one."""
    try:
        msgspec.convert(text, Id)
    except msgspec.ValidationError:
        return Malformed("id", _ACCEPTED[Id])
    return None


def parse_query(parameters: Mapping[str, list[str]]) -> AuthorizationQuery | Malformed:
    """The query in `parameters`, which have every value of a name. The first problem is given in this order: the
    kind, what is not known or repeated, what is missing or wrong."""
    kinds = parameters.get("kind", [])
    if len(kinds) != 1 or kinds[0] not in _BY_KIND:
        return Malformed("kind", f"must be given once, as one of {_KINDS}")
    query, fields = _BY_KIND[kinds[0]]
    for name, values in parameters.items():
        if name != "kind" and name not in fields:
            return Malformed(name[:64], f"not a parameter of kind {kinds[0]}")
        if len(values) > 1:
            return Malformed(name, "given more than once")
    found: dict[str, Any] = {}
    for name, field in fields.items():
        if name in parameters:
            value = _value(field, parameters[name][0])
            if isinstance(value, Malformed):
                return value
            found[name] = value
        elif field.required:
            return Malformed(name, "missing")
    return query(**found)


def _value(field: msgspec.structs.FieldInfo, text: str) -> Any:
    value: str | int = text
    if field.type is Quantity:
        if not _WHOLE(text):
            return Malformed(field.name, _ACCEPTED[Quantity])
        value = int(text)
    elif field.name == "to" and text.startswith(" "):  # how an unencoded plus arrives
        value = f"+{text[1:]}"
    try:
        return msgspec.convert(value, field.type)
    except msgspec.ValidationError:
        return Malformed(field.name, _ACCEPTED[field.type])
