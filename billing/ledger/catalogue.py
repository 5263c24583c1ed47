"""Publishing the catalogue: versions in their order, then the heartbeat that vouches for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from billing.ledger import metrics
from billing.ledger.database import Pool, fetch, fetchrow, transaction
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.outbox import Message, Publisher, delete
from billing.ledger.queries import query
from schemas.catalogue import (
    CatalogueMessage,
    Heartbeat,
    PlanAssignment,
    TariffVersion,
    catalogue_key,
    encode_catalogue,
)

HEARTBEAT_S = 5.0
LOCKED_MS = 5_000  # the longest that a relay that says nothing may hold the versions' lock
MAX_VERSIONS = 500
MAX_BYTES = 8 * 2**20

_decode: Mapping[str, Callable[[str], CatalogueMessage]] = {
    "catalogue.tariff.v1": msgspec.json.Decoder(TariffVersion).decode,
    "catalogue.assignment.v1": msgspec.json.Decoder(PlanAssignment).decode,
}


@dataclass(frozen=True, slots=True)
class _AsOf:
    """A heartbeat that waits for the versions up to `bound` (id in catalogue_outbox) to be acknowledged."""

    timeline: str
    as_of_ms: int
    bound: int
    partitions: int


class CataloguePublisher:
    """Publishes versions and a heartbeat at least every `heartbeat_s` while nothing keeps the versions back.

    The heartbeat's promise, "every version committed before as_of has been published", holds because as_of is taken
    under a lock that no later version commits across, and because a version whose transaction takes the lock after it
    is verified to take effect at least the lead after as_of (`catalogue_lead` in the migrations).
    """

    def __init__(self, pool: Pool, publisher: Publisher, topic: str, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._pool = pool
        self._publisher = publisher
        self._topic = topic
        self._heartbeat_s = heartbeat_s
        self._pending: _AsOf | None = None
        self._due_s = 0.0

    async def step(self) -> int:
        """One round; returns how many versions were published. Raises what the publisher or asyncpg raise."""
        published = await self._publish_versions()
        if self._pending is None and time.monotonic() >= self._due_s:
            self._pending = await self._take_as_of()
            self._due_s = time.monotonic() + self._heartbeat_s
        if self._pending is not None:
            await self._beat(self._pending)
        return published

    async def _publish_versions(self) -> int:
        rows = await fetch(self._pool, query("relay.versions"), MAX_VERSIONS, MAX_BYTES)
        if not rows:
            return 0
        await self._publisher.publish(
            [self._message(_of(row["catalogue"], _decode[row["type"]](row["data"])), row["time_ms"]) for row in rows]
        )
        await delete(self._pool, "relay.delete_versions", [row["id"] for row in rows])
        metrics.relayed_versions.inc(len(rows))
        return len(rows)

    async def _take_as_of(self) -> _AsOf:
        async with transaction(self._pool) as connection:
            await connection.execute(query("relay.brief"), str(LOCKED_MS))
            await connection.execute(query("relay.lock_versions"), LOCK_SPACE, Lock.CATALOGUE_VERSION)
            row = await connection.fetchrow(query("relay.take_as_of"))
        if row is None:
            raise LookupError("catalogue_clock is empty")
        return _AsOf(row["timeline"], row["as_of_ms"], row["bound"], row["partitions"])

    async def _beat(self, pending: _AsOf) -> None:
        row = await fetchrow(self._pool, query("relay.any_version_up_to"), pending.bound)
        if row is None or row[0]:
            return  # an assignment waits for its account's entries; the next round looks again
        heartbeat = Heartbeat(
            timeline=pending.timeline, as_of_ms=pending.as_of_ms, partitions=pending.partitions
        )
        await self._publisher.publish([self._message(heartbeat, pending.as_of_ms)])
        metrics.relay_heartbeat_ms.set(pending.as_of_ms)
        self._pending = None

    def _message(self, message: CatalogueMessage, time_ms: int) -> Message:
        return Message(self._topic, 0, catalogue_key(message), encode_catalogue(message, time_ms))


def _of(catalogue: str, message: CatalogueMessage) -> CatalogueMessage:
    """The catalogue keeps its name when a restored ledger begins another timeline (S28)."""
    return msgspec.structs.replace(message, timeline=catalogue)
