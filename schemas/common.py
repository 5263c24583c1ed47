"""Types shared by all wire contracts: their bounds are the contract, and the generated JSON Schema shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

MAX_MICROS = 2**53 - 1
"""Largest amount in micro-units, either sign: what a double (Lua's only number) holds exactly (R10)."""

MAX_COUNT = 2**31 - 1

CONTENT_TYPE = b"application/cloudevents+json; charset=UTF-8"
CLOUDEVENTS_HEADERS: tuple[tuple[str, bytes], ...] = (("content-type", CONTENT_TYPE),)
"""Kafka headers of a record whose value is a structured-mode CloudEvent; everything here is written so."""

# The `pattern` of these types is only shown in the schema where a runtime check by other means is cheaper:
# msgspec would run Python's `re` for every value (see billing/usage/decode.py).
ID_PATTERN = "^[A-Za-z0-9._:-]{1,64}$"
E164_PATTERN = r"^\+[1-9][0-9]{6,14}$"
MESSAGE_TO_PATTERN = r"^(\+[1-9][0-9]{6,14}|short:[0-9]{3,12})$"

Id: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,64}\Z", extra_json_schema={"pattern": ID_PATTERN})]
"""An id of ours, checked on decoding: accounts, plans, timelines, sessions, skus."""

Micros: TypeAlias = Annotated[
    int, Meta(ge=-MAX_MICROS, le=MAX_MICROS, description="micro-units (10^-6) of the currency")
]
PositiveMicros: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_MICROS, description="micro-units (10^-6) of the currency")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Seq: TypeAlias = Annotated[int, Meta(ge=1, description="position in the account's sequence of entries, from 1")]
Offset: TypeAlias = Annotated[int, Meta(ge=0, description="an offset of usage.events")]
Partition: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Millis: TypeAlias = Annotated[int, Meta(ge=0, description="milliseconds since 1970-01-01 UTC")]
Timestamp: TypeAlias = Annotated[datetime, Meta(tz=True, description="RFC 3339 with a time zone")]
Currency: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z", extra_json_schema={"pattern": "^[A-Z]{3}$"})]
Text: TypeAlias = Annotated[str, Meta(max_length=500)]
AccountStatus: TypeAlias = Literal["open", "suspended", "closed"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class MalformedMessage(Exception):
    """A record on a topic that only the relay writes is not one of its messages. That is trouble (another
    writer, or another build), so it is raised; whoever follows the topic halts."""


def millis(moment: datetime) -> int:
    """Milliseconds since 1970 UTC of an aware datetime, rounded down."""
    return (moment - EPOCH) // _MILLISECOND


def moment(time_ms: int) -> datetime:
    """The UTC datetime of `time_ms`."""
    return EPOCH + timedelta(milliseconds=time_ms)


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The CloudEvents 1.0 attributes of the messages that the relay writes; `type` is each subclass's tag."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str = "billing/ledger"
    subject: str
    time: Timestamp
    datacontenttype: Literal["application/json"] = "application/json"
