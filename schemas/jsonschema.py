"""JSON Schema of the contracts, from the structs that decode them."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec

from schemas import catalogue, deadletter, ledger, signals, usage

Json: TypeAlias = dict[str, Any]

USAGE_TYPES: tuple[type[msgspec.Struct], ...] = (
    usage.CallStartedEvent,
    usage.CallProgressedEvent,
    usage.CallCompletedEvent,
    usage.MessageAcceptedEvent,
    usage.MessageCompletedEvent,
    usage.ItemCompletedEvent,
)
ENTRY_TYPES: tuple[type[msgspec.Struct], ...] = (
    ledger.AccountOpenedEvent,
    ledger.AccountChangedEvent,
    ledger.EntryPostedEvent,
    ledger.DebitsAcknowledgedEvent,
    ledger.ViewCorrectedEvent,
)
CATALOGUE_TYPES: tuple[type[msgspec.Struct], ...] = (
    catalogue.TariffEvent,
    catalogue.AssignmentEvent,
    catalogue.HeartbeatEvent,
)

SIGNAL_TYPES: tuple[type[msgspec.Struct], ...] = (
    signals.BalanceLowEvent,
    signals.BalanceExhaustedEvent,
    signals.BalanceRestoredEvent,
    signals.SessionCutoffEvent,
    signals.HoldExpiredEvent,
    signals.AccountSuspendedEvent,
    signals.AccountResumedEvent,
)


def documents() -> dict[str, Json]:
    """File name -> JSON Schema document, one per topic and one for dead letters."""
    return {
        "usage.events.json": _document("A record of usage.events (structured mode)", (*USAGE_TYPES, usage.Tick)),
        "ledger.entries.json": _document("A record of ledger.entries", ENTRY_TYPES),
        "billing.tariffs.json": _document("A record of billing.tariffs", CATALOGUE_TYPES),
        "billing.signals.json": _document("A record of billing.signals", SIGNAL_TYPES),
        "dead-letter.json": _document("A dead letter, as `billing dlq list` shows it", (deadletter.DeadLetterRow,)),
    }


def message_type(struct: type[msgspec.Struct]) -> str:
    """The CloudEvents `type` of an event's struct."""
    return str(struct.__struct_config__.tag)


def components(types: tuple[type[msgspec.Struct], ...], ref_template: str) -> tuple[list[Json], dict[str, Json]]:
    """The schemas of `types` (references), and of everything that they use by name."""
    roots, named = msgspec.json.schema_components(types, ref_template=ref_template)
    return [portable(root) for root in roots], {name: portable(schema) for name, schema in named.items()}


def portable(schema: Any) -> Any:
    """`schema` as every reader takes it: descriptions on one line (they are docstrings, which Python 3.13 indents
    otherwise than 3.11), and patterns that end with `$`, because ECMA-262 does not know Python's `\\Z`."""
    if isinstance(schema, list):
        return [portable(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _portable_member(name, member) for name, member in schema.items()}


def _portable_member(name: str, member: Any) -> Any:
    if name == "description" and isinstance(member, str):
        return " ".join(member.split())
    if name == "pattern" and isinstance(member, str):
        return re.sub(r"\\Z$", "$", member)
    return portable(member)


def _document(title: str, types: tuple[type[msgspec.Struct], ...]) -> Json:
    roots, named = components(types, "#/$defs/{name}")
    root: Json = roots[0] if len(roots) == 1 else {"oneOf": roots}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **root,
        "$defs": {name: named[name] for name in sorted(named)},
    }
