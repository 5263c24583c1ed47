"""Records, events and catalogues for tests of the pure code. Plain dicts on purpose: they share nothing with the
structs that they test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from billing.rating.catalogue import Catalogue
from billing.rating.tariff_csv import COLUMNS, parse_tariff
from billing.stream.record import StoredRecord
from billing.usage.classify import Classifier
from billing.usage.partitioner import home_partition
from schemas.catalogue import Heartbeat, PlanAssignment, Rate, TariffVersion, encode_catalogue

NOW_MS = 1_790_000_000_000
PARTITIONS = 8
ACCOUNT = "acct-1"
HOME = home_partition(ACCOUNT, PARTITIONS)
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)

TARIFF = """\
call,outbound,1,0.0120,60,6,0.01,0.02,North America
call,outbound,1787,0.0500,,,,,Puerto Rico
call,outbound,49,0.06,1,1,,,Germany
call,outbound,800,0,,,,,toll free
call,outbound,979,9007199254,60,60,,,so dear that an hour is out of range
call,inbound,1,0.0085,60,60,,,inbound
sms,outbound,1,0.0079,,,,,
sms,outbound,49,0.0750,,,,,
sms,outbound,short:12,0.5,,,,,
sms,inbound,1,0.0075,,,,,
mms,outbound,1,0.02,,,,,
item,,number.local,1.15,,,,,
item,,number.dear,9000000000,,,,,
"""


def rates(text: str = TARIFF) -> tuple[Rate, ...]:
    """Rates of a tariff without its header line."""
    parsed = parse_tariff((",".join(COLUMNS) + "\n" + text).encode())
    assert isinstance(parsed, tuple), parsed
    return parsed


def tariff(text: str = TARIFF, **changes: Any) -> TariffVersion:
    fields: dict[str, Any] = {
        "timeline": "t1",
        "plan": "basic",
        "version": 1,
        "currency": "USD",
        "effective_ms": 0,
        "rates": rates(text),
    }
    return TariffVersion(**(fields | changes))


def assignment(account: str = ACCOUNT, **changes: Any) -> PlanAssignment:
    fields: dict[str, Any] = {
        "timeline": "t1",
        "account": account,
        "version": 1,
        "plan": "basic",
        "effective_ms": 0,
        "home_partition": home_partition(account, PARTITIONS),
        "usage_position": 100,
    }
    return PlanAssignment(**(fields | changes))


def heartbeat(as_of_ms: int = NOW_MS, timeline: str = "t1") -> Heartbeat:
    return Heartbeat(timeline=timeline, as_of_ms=as_of_ms)


def catalogue(*messages: TariffVersion | PlanAssignment | Heartbeat) -> Catalogue:
    """A catalogue of these messages; without any: one plan, one account, a heartbeat of NOW_MS."""
    made = Catalogue()
    for message in messages or (tariff(), assignment(), heartbeat()):
        made.apply(encode_catalogue(message, NOW_MS))
    return made


def classifier(*messages: TariffVersion | PlanAssignment | Heartbeat) -> Classifier:
    return Classifier(catalogue(*messages), PARTITIONS)


def classifier_of(catalogue: Catalogue) -> Classifier:
    return Classifier(catalogue, PARTITIONS)


def rfc3339(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def call(**changes: Any) -> dict[str, Any]:
    """Data of a completed call of a minute; a change to None leaves the member out."""
    data = {"call_id": "c-1", "direction": "outbound", "from": "+12125550100", "to": "+12025550123"}
    return _changed({**data, "duration_seconds": 60, "status": "completed"}, changes)


def started(**changes: Any) -> dict[str, Any]:
    return call(duration_seconds=None, status=None, **changes)


def progressed(elapsed_seconds: int = 30, **changes: Any) -> dict[str, Any]:
    timed = {"answered_at": rfc3339(NOW_MS - 30_000)} | changes
    return call(duration_seconds=None, status=None, elapsed_seconds=elapsed_seconds, **timed)


def accepted(**changes: Any) -> dict[str, Any]:
    data = {"message_id": "m-1", "channel": "sms", "direction": "outbound", "from": "Shop", "to": "+12025550123"}
    return _changed({**data, "segments": 1}, changes)


def delivered(**changes: Any) -> dict[str, Any]:
    return accepted(**({"accepted_at": rfc3339(NOW_MS), "status": "delivered"} | changes))


def item(**changes: Any) -> dict[str, Any]:
    return _changed({"item_id": "i-1", "sku": "number.local", "quantity": 1}, changes)


def _changed(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (data | changes).items() if value is not None}


CALL = "usage.call.completed.v1"
STARTED = "usage.call.started.v1"
PROGRESSED = "usage.call.progressed.v1"
ACCEPTED = "usage.message.accepted.v1"
DELIVERED = "usage.message.completed.v1"
ITEM = "usage.item.completed.v1"

EXAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    (STARTED, started()),
    (PROGRESSED, progressed()),
    (CALL, call()),
    (ACCEPTED, accepted()),
    (DELIVERED, delivered()),
    (ITEM, item()),
)


def envelope(type_: str, data: Any, **changes: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "switch/1",
        "type": type_,
        "subject": ACCOUNT,
        "time": rfc3339(NOW_MS),
        "data": data,
    }
    return _changed(attributes, changes)


def record(
    value: bytes | None,
    headers: Iterable[tuple[str, Any]] = STRUCTURED,
    *,
    key: bytes | None = ACCOUNT.encode(),
    partition: int = HOME,
    offset: int = 1000,
    timestamp: int = NOW_MS,
) -> StoredRecord:
    return StoredRecord("usage.events", partition, offset, timestamp, key, value, tuple(headers))


def structured(event: dict[str, Any], **place: Any) -> StoredRecord:
    """The record of an envelope in structured mode."""
    return record(json.dumps(event).encode(), **place)


def binary(event: dict[str, Any], **place: Any) -> StoredRecord:
    """The record of an envelope in binary mode."""
    headers = [("content-type", b"application/json")]
    headers += [(f"ce_{name}", str(text).encode()) for name, text in event.items() if name != "data"]
    value = json.dumps(event["data"]).encode() if "data" in event else None
    return record(value, headers, **place)


def both_modes(event: dict[str, Any], **place: Any) -> Sequence[StoredRecord]:
    return structured(event, **place), binary(event, **place)
