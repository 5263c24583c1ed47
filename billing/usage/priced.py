"""From an event and the tariff that prices it to a hold or a charge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from billing.money import MAX_MICROS
from billing.rating.price import call_price, unit_price
from billing.rating.tariff import Tariff
from billing.stream.record import Record
from billing.usage.ops import CALL_LEASE_MS, MESSAGE_LEASE_MS, Charge, DeadLetter, Hold
from schemas.reasons import DeadLetterReason
from schemas.usage import (
    DEFAULT_RESERVE_SECONDS,
    MAX_RESERVE_SECONDS,
    CallCompletedEvent,
    CallProgressedEvent,
    CallStartedEvent,
    ItemCompletedEvent,
    MessageAcceptedEvent,
    MessageCompletedEvent,
    UsageEvent,
)

Priced: TypeAlias = Hold | Charge | DeadLetter


def price_event(record: Record, event: UsageEvent, tariff: Tariff, price_ms: int) -> Priced:
    """The operation that `event` asks for, priced by `tariff`; NO_PRICE or AMOUNT_OUT_OF_RANGE otherwise."""
    return _BY_TYPE[type(event)](record, event, tariff, price_ms)


def _call_started(record: Record, event: CallStartedEvent, tariff: Tariff, price_ms: int) -> Priced:
    return _call_hold(record, event, tariff, 0)


def _call_progressed(record: Record, event: CallProgressedEvent, tariff: Tariff, price_ms: int) -> Priced:
    return _call_hold(record, event, tariff, event.data.elapsed_seconds)


def _call_hold(
    record: Record, event: CallStartedEvent | CallProgressedEvent, tariff: Tariff, elapsed_seconds: int
) -> Priced:
    data = event.data
    rate = tariff.match("call", data.direction, data.to)
    if rate is None:
        return _no_price(record)
    asked = data.reserve_seconds
    reserve_seconds = DEFAULT_RESERVE_SECONDS if asked is None else min(asked, MAX_RESERVE_SECONDS)
    amount_micros = call_price(rate, elapsed_seconds + reserve_seconds)
    if amount_micros > MAX_MICROS:
        return _out_of_range(record)
    return Hold(
        record.offset,
        record.timestamp,
        event.subject,
        "call",
        data.call_id,
        amount_micros,
        elapsed_seconds,
        CALL_LEASE_MS,
    )


def _message_accepted(record: Record, event: MessageAcceptedEvent, tariff: Tariff, price_ms: int) -> Priced:
    data = event.data
    rate = tariff.match(data.channel, data.direction, data.to)
    if rate is None:
        return _no_price(record)
    amount_micros = unit_price(rate, data.segments)
    if amount_micros > MAX_MICROS:
        return _out_of_range(record)
    return Hold(
        record.offset,
        record.timestamp,
        event.subject,
        "message",
        data.message_id,
        amount_micros,
        0,
        MESSAGE_LEASE_MS,
    )


# Charges are built by position, in the order of their fields: by name would cost another 0.4 us per event.


def _call_completed(record: Record, event: CallCompletedEvent, tariff: Tariff, price_ms: int) -> Priced:
    data = event.data
    amount_micros, matched = 0, ""
    if data.status == "completed":
        rate = tariff.match("call", data.direction, data.to)
        if rate is None:
            return _no_price(record)
        amount_micros, matched = call_price(rate, data.duration_seconds), rate.match
        if amount_micros > MAX_MICROS:
            return _out_of_range(record)
    return Charge(
        record.offset,
        record.timestamp,
        event.subject,
        "call",
        data.call_id,
        amount_micros,
        tariff.currency,
        tariff.plan,
        tariff.version,
        price_ms,
        "call",
        data.direction,
        data.to,
        data.from_,
        data.duration_seconds,
        data.status,
        matched,
        event.id,
        event.source,
    )


def _message_completed(record: Record, event: MessageCompletedEvent, tariff: Tariff, price_ms: int) -> Priced:
    data = event.data
    amount_micros, matched = 0, ""
    if data.status != "failed":
        rate = tariff.match(data.channel, data.direction, data.to)
        if rate is None:
            return _no_price(record)
        amount_micros, matched = unit_price(rate, data.segments), rate.match
        if amount_micros > MAX_MICROS:
            return _out_of_range(record)
    return Charge(
        record.offset,
        record.timestamp,
        event.subject,
        "message",
        data.message_id,
        amount_micros,
        tariff.currency,
        tariff.plan,
        tariff.version,
        price_ms,
        data.channel,
        data.direction,
        data.to,
        data.from_,
        data.segments,
        data.status,
        matched,
        event.id,
        event.source,
    )


def _item_completed(record: Record, event: ItemCompletedEvent, tariff: Tariff, price_ms: int) -> Priced:
    data = event.data
    rate = tariff.item(data.sku)
    if rate is None:
        return _no_price(record)
    amount_micros = unit_price(rate, data.quantity)
    if amount_micros > MAX_MICROS:
        return _out_of_range(record)
    return Charge(
        record.offset,
        record.timestamp,
        event.subject,
        "item",
        data.item_id,
        amount_micros,
        tariff.currency,
        tariff.plan,
        tariff.version,
        price_ms,
        "item",
        "",
        data.sku,
        "",
        data.quantity,
        "completed",
        rate.match,
        event.id,
        event.source,
    )


def _no_price(record: Record) -> DeadLetter:
    return DeadLetter(record, DeadLetterReason.NO_PRICE, "the tariff has no match")


def _out_of_range(record: Record) -> DeadLetter:
    return DeadLetter(record, DeadLetterReason.AMOUNT_OUT_OF_RANGE, "not below 2^53 micro-units")


_BY_TYPE: dict[type, Callable[[Record, Any, Tariff, int], Priced]] = {
    CallStartedEvent: _call_started,
    CallProgressedEvent: _call_progressed,
    CallCompletedEvent: _call_completed,
    MessageAcceptedEvent: _message_accepted,
    MessageCompletedEvent: _message_completed,
    ItemCompletedEvent: _item_completed,
}
