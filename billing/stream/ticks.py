"""Ticks: what an idle partition's owner appends while holds are open, so that log time goes on (design, section 2)."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from billing.stream.publisher import Outgoing, Publisher

CONTENT_TYPE = (("content-type", b"application/cloudevents+json"),)


class Ticker:
    """Appends one `billing.tick.v1` to a partition of the usage topic. Raises LogAway."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic

    async def __call__(self, partition: int) -> None:
        await self._publisher.publish([tick(self._topic, partition)])


def tick(topic: str, partition: int) -> Outgoing:
    """One tick, to be published."""
    event = {
        "specversion": "1.0",
        "id": uuid4().hex,
        "source": "billing/inflight",
        "type": "billing.tick.v1",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "data": {},
    }
    return Outgoing(topic, msgspec.json.encode(event), headers=CONTENT_TYPE, partition=partition)
