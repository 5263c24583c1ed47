"""What an event's session costs by a tariff: the one place where both consumers take their prices from. Pure.

Each function returns (session id, rate, amount in micro-units, elapsed seconds), or None where the tariff has no match.
Plain tuples, because one is made for every event; amounts are not bounded here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from billing.rating.price import call_price, unit_price
from billing.rating.tariff import Tariff
from schemas.catalogue import Rate
from schemas.usage import (
    DEFAULT_RESERVE_SECONDS,
    MAX_RESERVE_SECONDS,
    CallCompleted,
    CallCompletedEvent,
    CallProgressed,
    CallProgressedEvent,
    CallStarted,
    CallStartedEvent,
    ItemCompleted,
    ItemCompletedEvent,
    MessageAccepted,
    MessageAcceptedEvent,
    MessageCompleted,
    MessageCompletedEvent,
)

Amount: TypeAlias = tuple[str, Rate, int, int]

FREE = Rate(
    kind="call", direction="outbound", match="", rate_micros=0, first_increment_seconds=1, next_increment_seconds=1,
    connect_fee_micros=0, minimum_charge_micros=0, description="",
)  # fmt: skip
"""What did not come about (a busy line, a failed message) costs nothing, whatever the tariff says: nothing matched."""


def rate_of_call(data: CallStarted | CallProgressed, tariff: Tariff) -> Rate | None:
    """What a hold for this call is worked out by below, without another call; None where the tariff has no match."""
    return tariff.match("call", data.direction, data.to)


def _call_started(data: CallStarted, tariff: Tariff) -> Amount | None:
    rate = tariff.match("call", data.direction, data.to)
    if rate is None:
        return None
    return data.call_id, rate, call_price(rate, _reserve_seconds(data.reserve_seconds)), 0


def _call_progressed(data: CallProgressed, tariff: Tariff) -> Amount | None:
    rate = tariff.match("call", data.direction, data.to)
    if rate is None:
        return None
    elapsed = data.elapsed_seconds
    return data.call_id, rate, call_price(rate, elapsed + _reserve_seconds(data.reserve_seconds)), elapsed


def _reserve_seconds(asked: int | None) -> int:
    if asked is None:
        return DEFAULT_RESERVE_SECONDS
    return asked if asked < MAX_RESERVE_SECONDS else MAX_RESERVE_SECONDS


def _call_completed(data: CallCompleted, tariff: Tariff) -> Amount | None:
    if data.status != "completed":
        return data.call_id, FREE, 0, 0
    rate = tariff.match("call", data.direction, data.to)
    if rate is None:
        return None
    return data.call_id, rate, call_price(rate, data.duration_seconds), 0


def _message_accepted(data: MessageAccepted, tariff: Tariff) -> Amount | None:
    rate = tariff.match(data.channel, data.direction, data.to)
    if rate is None:
        return None
    return data.message_id, rate, unit_price(rate, data.segments), 0


def _message_completed(data: MessageCompleted, tariff: Tariff) -> Amount | None:
    if data.status == "failed":
        return data.message_id, FREE, 0, 0
    rate = tariff.match(data.channel, data.direction, data.to)
    if rate is None:
        return None
    return data.message_id, rate, unit_price(rate, data.segments), 0


def _item_completed(data: ItemCompleted, tariff: Tariff) -> Amount | None:
    rate = tariff.item(data.sku)
    if rate is None:
        return None
    return data.item_id, rate, unit_price(rate, data.quantity), 0


AMOUNTS: dict[type, Callable[[Any, Tariff], Amount | None]] = {
    CallStartedEvent: _call_started,
    CallProgressedEvent: _call_progressed,
    CallCompletedEvent: _call_completed,
    MessageAcceptedEvent: _message_accepted,
    MessageCompletedEvent: _message_completed,
    ItemCompletedEvent: _item_completed,
}
"""By the event's type; each takes the event's data."""

CALL_HOLDS = frozenset({CallStartedEvent, CallProgressedEvent})
"""Types of events whose amounts `rate_of_call` is the rate of, and the dearest of all to work out."""
