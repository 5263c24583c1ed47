"""Calls, messages and items as the demo's producer sees them: what each step says, and what it means for money."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from billing.lab.expected import Expected, SessionKey
from billing.lab.oracle import Oracle
from billing.lab.population import DemoAccount
from billing.lab.wire import rfc3339

DEFAULT_RESERVE_SECONDS = 60
CALL_STATUSES = ("completed", "busy", "no-answer", "failed", "canceled")
CALL_WEIGHTS = (80, 6, 9, 3, 2)
MESSAGE_STATUSES = ("delivered", "sent", "undelivered", "failed")
MESSAGE_WEIGHTS = (80, 12, 5, 3)


class Told(NamedTuple):
    """A step's event type and data."""

    type: str
    data: dict[str, Any]


@dataclass(slots=True)
class Call:
    """One leg. `seconds` is the claimed duration: it lies in the past, so that a minute passes in a moment."""

    account: DemoAccount
    id: str
    direction: str
    origin: str
    to: str
    answered_ms: int
    seconds: int
    status: str
    reserve_seconds: int | None

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.account.id, "call", self.id)

    def tell(
        self, step: str, elapsed: int, oracle: Oracle, expected: Expected, now_ms: int, *, longer: int = 0
    ) -> Told:
        """The event of a step, noted in `expected`; `longer` seconds make a completion differ from the first."""
        data: dict[str, Any] = {"call_id": self.id, "direction": self.direction, "from": self.origin, "to": self.to}
        if step == "completed":
            seconds = self.seconds + longer if self.status == "completed" else 0
            expected.complete(self.key, self._cost(oracle, seconds))
            data |= {"duration_seconds": seconds, "status": self.status}
            if self.status == "completed":
                data["answered_at"] = rfc3339(self.answered_ms)
            return Told("usage.call.completed.v1", data)
        if self.reserve_seconds is not None:
            data["reserve_seconds"] = self.reserve_seconds
        reserve = DEFAULT_RESERVE_SECONDS if self.reserve_seconds is None else self.reserve_seconds
        expected.hold(self.key, elapsed, self._cost(oracle, elapsed + reserve), now_ms)
        if step == "progressed":
            data |= {"answered_at": rfc3339(self.answered_ms), "elapsed_seconds": elapsed}
        return Told(f"usage.call.{step}.v1", data)

    def _cost(self, oracle: Oracle, seconds: int) -> int:
        return _priced(oracle.cost(self.account.plan, "call", self.direction, self.to, seconds))


@dataclass(slots=True)
class Text:
    """One message, sms or mms."""

    account: DemoAccount
    id: str
    channel: str
    direction: str
    origin: str
    to: str
    segments: int
    accepted_ms: int
    status: str

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.account.id, "message", self.id)

    def tell(
        self, step: str, _elapsed: int, oracle: Oracle, expected: Expected, now_ms: int, *, longer: int = 0
    ) -> Told:
        """As for calls; `longer` more segments make a completion differ."""
        segments = self.segments + longer
        data: dict[str, Any] = {"message_id": self.id, "channel": self.channel, "direction": self.direction}
        data |= {"from": self.origin, "to": self.to, "segments": segments}
        cost = _priced(oracle.cost(self.account.plan, self.channel, self.direction, self.to, segments))
        if step == "accepted":
            expected.hold(self.key, 0, cost, now_ms)
            return Told("usage.message.accepted.v1", data)
        expected.complete(self.key, 0 if self.status == "failed" else cost)
        data |= {"accepted_at": rfc3339(self.accepted_ms), "status": self.status}
        return Told("usage.message.completed.v1", data)


@dataclass(slots=True)
class Item:
    """A one-off purchase: a single event, `completed`."""

    account: DemoAccount
    id: str
    sku: str
    quantity: int

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.account.id, "item", self.id)

    def tell(
        self, _step: str, _elapsed: int, oracle: Oracle, expected: Expected, _now_ms: int, *, longer: int = 0
    ) -> Told:
        quantity = self.quantity + longer
        expected.complete(self.key, _priced(oracle.cost(self.account.plan, "item", "", self.sku, quantity)))
        return Told("usage.item.completed.v1", {"item_id": self.id, "sku": self.sku, "quantity": quantity})


Session: TypeAlias = Call | Text | Item


class Numbers:
    """A small phone book per plan: numbers that its tariff has a price for."""

    def __init__(self, rng: random.Random, oracle: Oracle, plans: Sequence[str]) -> None:
        self._book: dict[tuple[str, str, str], list[str]] = {}
        for plan in plans:
            for kind in ("call", "sms", "mms", "item"):
                for direction in ("inbound", "outbound", ""):
                    matches = oracle.matches(plan, kind, direction)
                    if matches:
                        self._book[plan, kind, direction] = [n for m in matches for n in _numbers(rng, m, 6)]

    def pick(self, rng: random.Random, plan: str, kind: str, direction: str) -> str:
        """A destination or sku of the plan."""
        return rng.choice(self._book[plan, kind, direction])


def _numbers(rng: random.Random, match: str, count: int) -> list[str]:
    if not match.isdigit():
        return [match]
    return [f"+{match}" + "".join(rng.choices("0123456789", k=11 - len(match))) for _ in range(count)]


def _priced(cost: int | None) -> int:
    if cost is None:
        raise ValueError("the phone book has a destination without a price")
    return cost
