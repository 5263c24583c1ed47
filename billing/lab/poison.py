"""Records that must become dead letters: every reason that a producer can cause, in several shapes each.

Every recipe makes one record and names the reason that the contract gives it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiokafka.partitioner import murmur2

from billing.lab.wire import Message, Mode, envelope, message
from schemas.reasons import DeadLetterReason as Reason

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TEN_TIMES_THE_LIMIT = 10 * 2**31


def home_partition(account: str, partitions: int) -> int:
    """Where Java's default partitioner, and so every producer, puts the account's records."""
    return int(murmur2(account.encode()) & 0x7FFFFFFF) % partitions


@dataclass(frozen=True, slots=True)
class Kitchen:
    """What a recipe may use. `account` exists; `dear_account` is one whose dearest item exceeds 2^53 micro-units
    when 2^31 - 1 of it are bought; `number` makes ids unique."""

    rng: random.Random
    now_ms: int
    partitions: int
    account: str
    dear_account: str
    number: str

    @property
    def mode(self) -> Mode:
        return "binary" if self.rng.random() < 0.5 else "structured"

    def id(self) -> str:
        return f"poison-{self.number}"

    def envelope(
        self, type_: str = "usage.call.completed.v1", *, subject: str = "", late_ms: int = 0
    ) -> dict[str, Any]:
        return envelope(type_, self.id(), subject or self.account, self.now_ms + late_ms)

    def call(self, **changes: Any) -> dict[str, Any]:
        """Data of a sound call of two minutes, with changes; a change to None leaves the member out."""
        data: dict[str, Any] = {
            "call_id": self.id(),
            "direction": "outbound",
            "from": "+12125550100",
            "to": "+12025550123",
            "duration_seconds": 120,
            "status": "completed",
        }
        data.update(changes)
        return {name: value for name, value in data.items() if value is not None}


Recipe: TypeAlias = Callable[[Kitchen], Message]


def _bad_data(**changes: Any) -> Recipe:
    return lambda kitchen: message(kitchen.envelope(), kitchen.call(**changes), kitchen.mode)


def _bad_message(**changes: Any) -> Recipe:
    def make(kitchen: Kitchen) -> Message:
        data: dict[str, Any] = {"message_id": kitchen.id(), "channel": "sms", "direction": "outbound"}
        data |= {"from": "Shop", "to": "+12025550123", "segments": 1} | changes
        return message(kitchen.envelope("usage.message.accepted.v1"), data, kitchen.mode)

    return make


def _item(sku: str, quantity: int, *, dear: bool = False) -> Recipe:
    def make(kitchen: Kitchen) -> Message:
        attributes = kitchen.envelope(
            "usage.item.completed.v1", subject=kitchen.dear_account if dear else kitchen.account
        )
        return message(attributes, {"item_id": kitchen.id(), "sku": sku, "quantity": quantity}, kitchen.mode)

    return make


def _without(attribute: str, mode: Mode) -> Recipe:
    def make(kitchen: Kitchen) -> Message:
        attributes = kitchen.envelope()
        attributes.pop(attribute)
        return message(attributes, kitchen.call(), mode, key=kitchen.account)

    return make


def _bytes(value: bytes | None, mode: Mode | None) -> Recipe:
    """The given value instead of an event; `mode` None sends no headers."""

    def make(kitchen: Kitchen) -> Message:
        key = kitchen.account.encode()
        if mode is None:
            return Message(key, value, ())
        return message(kitchen.envelope(), None, mode)._replace(value=value)

    return make


def _literal(number: bytes, mode: Mode) -> Recipe:
    """A call whose duration is this literal, which no JSON encoder would write."""

    def make(kitchen: Kitchen) -> Message:
        sound = message(kitchen.envelope(), kitchen.call(), mode)
        assert sound.value is not None
        return sound._replace(value=sound.value.replace(b'"duration_seconds":120', b'"duration_seconds":' + number))

    return make


def _type(type_: str) -> Recipe:
    return lambda kitchen: message(kitchen.envelope(type_), kitchen.call(), kitchen.mode)


def _key(key: bytes | None) -> Recipe:
    return lambda kitchen: message(kitchen.envelope(), kitchen.call(), kitchen.mode)._replace(key=key)


def _late(late_ms: int) -> Recipe:
    return lambda kitchen: message(kitchen.envelope(late_ms=late_ms), kitchen.call(), kitchen.mode)


def _elsewhere(kitchen: Kitchen) -> Message:
    home = home_partition(kitchen.account, kitchen.partitions)
    away = (home + kitchen.rng.randrange(1, kitchen.partitions)) % kitchen.partitions
    return message(kitchen.envelope(), kitchen.call(), kitchen.mode)._replace(partition=away)


def _nobody(kitchen: Kitchen) -> Message:
    return message(kitchen.envelope(subject=f"nobody-{kitchen.number}"), kitchen.call(), kitchen.mode)


RECIPES: tuple[tuple[Reason, Recipe], ...] = (
    (Reason.NOT_CLOUDEVENTS, _bytes(b'{"call":"12025550123","seconds":60}', None)),
    (Reason.NOT_CLOUDEVENTS, _bytes(None, None)),
    *((Reason.NOT_CLOUDEVENTS, _without(name, mode)) for name in ("id", "time") for mode in ("structured", "binary")),
    (Reason.NOT_JSON, _bytes(b'{"specversion":"1.0","type":', "structured")),
    (Reason.NOT_JSON, _bytes(b"call ended", "binary")),
    (Reason.NOT_JSON, _bytes(b'{"call_id":"\xff\xfe"}', "binary")),
    (Reason.NOT_JSON, _literal(b"NaN", "structured")),
    (Reason.NOT_JSON, _literal(b"NaN", "binary")),
    (Reason.UNKNOWN_TYPE, _type("usage.call.completed.v2")),
    (Reason.UNKNOWN_TYPE, _type("usage.fax.completed.v1")),
    (Reason.INVALID_DATA, _bad_data(call_id=None)),
    (Reason.INVALID_DATA, _bad_data(duration_seconds=None)),
    (Reason.INVALID_DATA, _bad_data(duration_seconds=-60)),
    (Reason.INVALID_DATA, _bad_data(duration_seconds=60.0)),
    (Reason.INVALID_DATA, _bad_data(duration_seconds=TEN_TIMES_THE_LIMIT)),
    (Reason.INVALID_DATA, _bad_data(duration_seconds="NaN")),
    (Reason.INVALID_DATA, _literal(b"1" + b"0" * 30, "structured")),
    (Reason.INVALID_DATA, _bad_data(status="hung-up")),
    (Reason.INVALID_DATA, _bad_data(to="020 7946 0000")),
    (Reason.INVALID_DATA, _bad_data(call_id="call 1")),
    (Reason.INVALID_DATA, _bad_message(segments=0)),
    (Reason.INVALID_DATA, _item("lookup", -1)),
    (Reason.KEY_MISMATCH, _key(b"demo-somebody-else")),
    (Reason.KEY_MISMATCH, _key(None)),
    (Reason.KEY_MISMATCH, _key(b"\xff\x00")),
    (Reason.TIME_IN_FUTURE, _late(HOUR_MS)),
    (Reason.TIME_TOO_OLD, _late(-100 * DAY_MS)),
    (Reason.WRONG_PARTITION, _elsewhere),
    (Reason.UNKNOWN_ACCOUNT, _nobody),
    (Reason.NO_PRICE, _bad_data(to="+8821234567")),
    (Reason.NO_PRICE, _bad_message(to="short:99999")),
    (Reason.NO_PRICE, _item("unicorn", 1)),
    (Reason.AMOUNT_OUT_OF_RANGE, _item("number.tollfree", 2**31 - 1, dear=True)),
)
