"""Publishing the outbox: rows leave it only when Kafka has acknowledged them.

Why no row is skipped and no account's entries change places: whoever takes a ledger_seq holds the account's balance
row until the commit, so entry n + 1 is taken only after n has been committed, and every reader that sees n + 1 sees
n, with a lower id. Rows are read by what is there, never by "after the last id", so commits may finish in any order.
Publishing again what was published before (a crash before the deletion, a relay that lost its lock) repeats entries,
each run from its oldest: readers ignore what is not above their ledger_seq.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from billing.ledger.database import Pool, fetch, lease
from billing.ledger.queries import query
from schemas.common import CLOUDEVENTS_HEADERS
from schemas.ledger import (
    AccountChanged,
    AccountOpened,
    DebitsAcknowledged,
    EntryPosted,
    LedgerEntry,
    ViewCorrected,
    encode_entry,
)


class Message(NamedTuple):
    """One record to publish."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = CLOUDEVENTS_HEADERS


class Publisher(Protocol):
    """What the relay needs of Kafka."""

    async def publish(self, messages: list[Message]) -> None:
        """Return when all are acknowledged by all in-sync replicas, in their order within each partition. Raises when
        any may not be; then none may be written after one that was not. Has a deadline of its own (R11)."""
        ...


ENTRY_TYPES: Mapping[str, type[LedgerEntry]] = {
    "ledger.account.opened.v1": AccountOpened,
    "ledger.account.changed.v1": AccountChanged,
    "ledger.entry.posted.v1": EntryPosted,
    "ledger.debits.acknowledged.v1": DebitsAcknowledged,
    "ledger.view.corrected.v1": ViewCorrected,
}
_decode: Mapping[str, Callable[[str], LedgerEntry]] = {
    name: msgspec.json.Decoder(entry).decode for name, entry in ENTRY_TYPES.items()
}


async def publish_entries(pool: Pool, publisher: Publisher, topic: str, partition: int, limit: int) -> int:
    """One round for a partition: publish the oldest rows, then delete them. Returns how many there were. Raises what
    the publisher or asyncpg raise; the rows are then published again."""
    rows = await fetch(pool, query("relay.entries"), partition, limit)
    if not rows:
        return 0
    messages = [
        Message(
            topic,
            partition,
            row["account_id"].encode(),
            encode_entry(_decode[row["type"]](row["data"]), row["time_ms"]),
        )
        for row in rows
    ]
    await publisher.publish(messages)
    await delete(pool, "relay.delete_entries", [row["id"] for row in rows])
    return len(rows)


async def delete(pool: Pool, name: str, ids: Sequence[int]) -> None:
    """Delete acknowledged rows with the query `name`."""
    async with lease(pool) as connection:
        await connection.execute(query(name), ids)
