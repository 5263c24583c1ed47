"""CloudEvents as a producer writes them, in both modes. Shares no code with the decoder in `schemas/`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

Mode: TypeAlias = Literal["structured", "binary"]
Headers: TypeAlias = tuple[tuple[str, bytes], ...]

SOURCE = "demo/switch-1"
STRUCTURED: Headers = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


class Message(NamedTuple):
    """A record to be sent; `partition` None leaves the choice to the producer's partitioner (by key)."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


def rfc3339(time_ms: int) -> str:
    """Milliseconds since 1970 UTC as "2026-11-21T21:08:00.123Z"."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def envelope(type_: str, event_id: str, subject: str, time_ms: int) -> dict[str, Any]:
    """The context attributes of an event, without its data."""
    return {
        "specversion": "1.0",
        "type": type_,
        "source": SOURCE,
        "id": event_id,
        "subject": subject,
        "time": rfc3339(time_ms),
        "datacontenttype": "application/json",
    }


def message(attributes: dict[str, Any], data: Any, mode: Mode, *, key: str | None = None) -> Message:
    """The record for an event; the key is the subject unless another is given."""
    record_key = (attributes.get("subject", "") if key is None else key).encode()
    if mode == "structured":
        return Message(record_key, msgspec.json.encode({**attributes, "data": data}), STRUCTURED)
    headers = [("content-type", b"application/json")]
    headers += [(f"ce_{name}", str(text).encode()) for name, text in attributes.items() if name != "datacontenttype"]
    return Message(record_key, msgspec.json.encode(data), tuple(headers))


def low_signal(account: str, currency: str, timeline: str, number: int, now_ms: int) -> Message:
    """A signal that says that the account's balance is zero and low, as a broken system would send it."""
    data = {"account": account, "currency": currency, "incarnation": 0, "timeline": timeline, "usage_position": 0}
    data |= {"log_time_ms": now_ms, "level_micros": 0, "available_micros": 0}
    data |= {"recharge_below_micros": None, "credit_limit_micros": 0}
    attributes = envelope("billing.balance.low.v1", f"demo-{number}", account, now_ms)
    return message(attributes, data, "structured")
