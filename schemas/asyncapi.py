"""The AsyncAPI 3 document: the four topics, what travels on them, and which way it goes seen from billing."""

from __future__ import annotations

import msgspec

from schemas.common import ID_PATTERN
from schemas.jsonschema import (
    CATALOGUE_TYPES,
    ENTRY_TYPES,
    SIGNAL_TYPES,
    USAGE_TYPES,
    Json,
    components,
    message_type,
)
from schemas.usage import Tick

_ACCOUNT_KEY: Json = {"type": "string", "pattern": ID_PATTERN, "description": "the account, equal to `subject`"}
_CATALOGUE_KEY: Json = {
    "type": "string",
    "description": "tariff:<plan>:<version>, plan:<account>:<version> or heartbeat",
}


def document() -> Json:
    """The AsyncAPI 3.0 document as JSON."""
    all_types: tuple[type[msgspec.Struct], ...] = (*USAGE_TYPES, Tick, *ENTRY_TYPES, *CATALOGUE_TYPES, *SIGNAL_TYPES)
    _, named = components(all_types, "#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Prepaid billing",
            "version": "1.0.0",
            "description": (
                "Usage in, balances and books out. Records are CloudEvents 1.0 in structured JSON mode; on "
                "usage.events binary mode is read as well. Partition: murmur2 of the key, as Java's client does it."
            ),
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": _messages(),
            "schemas": {name: named[name] for name in sorted(named)},
        },
    }


def _channels() -> Json:
    return {
        "usageEvents": _channel(
            "usage.events",
            "Usage by account; written by producers, and ticks by the owner of an idle partition. LogAppendTime.",
            (*USAGE_TYPES, Tick),
        ),
        "ledgerEntries": _channel(
            "ledger.entries",
            "What the ledger decided, in each account's ledger_seq order; written by the relay only. LogAppendTime; "
            "as many partitions as usage.events.",
            ENTRY_TYPES,
        ),
        "tariffs": _channel(
            "billing.tariffs",
            "The catalogue: one partition, compacted, one key per version; written by the relay only. LogAppendTime.",
            CATALOGUE_TYPES,
            cleanup="compact",
            partitions=1,
        ),
        "signals": _channel(
            "billing.signals",
            "Signals about balances and sessions, at least once, levels every 60 s while they hold; written by the "
            "owner of the account's home partition. As many partitions as usage.events. LogAppendTime.",
            SIGNAL_TYPES,
        ),
    }


def _channel(
    topic: str,
    description: str,
    types: tuple[type[msgspec.Struct], ...],
    cleanup: str | None = None,
    partitions: int | None = None,
) -> Json:
    kafka: Json = {"topic": topic, "bindingVersion": "0.5.0"}
    if partitions is not None:
        kafka["partitions"] = partitions
    if cleanup is not None:
        kafka["topicConfiguration"] = {"cleanup.policy": [cleanup]}
    names = [message_type(struct) for struct in types]
    return {
        "address": topic,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": kafka},
    }


def _operations() -> Json:
    return {
        "consumeUsage": _operation("receive", "usageEvents", USAGE_TYPES, "Both consumers apply usage."),
        "keepLogTime": _operation("send", "usageEvents", (Tick,), "Ticks let log time go on while holds are open."),
        "publishEntries": _operation("send", "ledgerEntries", ENTRY_TYPES, "The relay publishes the outbox."),
        "consumeEntries": _operation("receive", "ledgerEntries", ENTRY_TYPES, "The in-flight consumer applies them."),
        "publishSignals": _operation("send", "signals", SIGNAL_TYPES, "The in-flight consumer publishes them."),
        "consumeSignals": _operation("receive", "signals", SIGNAL_TYPES, "The recharge worker looks at the account."),
        "publishCatalogue": _operation("send", "tariffs", CATALOGUE_TYPES, "The relay publishes versions."),
        "consumeCatalogue": _operation("receive", "tariffs", CATALOGUE_TYPES, "Both consumers price from them."),
    }


def _operation(action: str, channel: str, types: tuple[type[msgspec.Struct], ...], summary: str) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message_type(struct)}"} for struct in types],
    }


def _messages() -> Json:
    keyed = [(struct, _ACCOUNT_KEY) for struct in (*USAGE_TYPES, *ENTRY_TYPES, *SIGNAL_TYPES)]
    keyed += [(struct, _CATALOGUE_KEY) for struct in CATALOGUE_TYPES]
    messages = {message_type(struct): _message(struct, key) for struct, key in keyed}
    messages[message_type(Tick)] = _message(Tick, None)
    return dict(sorted(messages.items()))


def _message(struct: type[msgspec.Struct], key: Json | None) -> Json:
    message: Json = {
        "name": message_type(struct),
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
    }
    if key is not None:
        message["bindings"] = {"kafka": {"key": key, "bindingVersion": "0.5.0"}}
    return message
