"""Did this ledger forget what it had published? (S28)

`ledger.entries` remembers: every entry there was committed before it was published. An entry of the ledger's present
timeline that the ledger does not have was forgotten: the database was restored to an earlier time, or a standby that
was behind was promoted. Then nothing is published and nobody is charged until a person has said what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing

import structlog

from billing.ledger import metrics
from billing.ledger.database import Connection, Pool, fetch, fetchrow, lease
from billing.ledger.findings import NewFinding, record
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.stream.kafka_reader import LogReader
from schemas.common import MalformedMessage
from schemas.ledger import decode_entry

log = structlog.get_logger(__name__)

TAIL = 256  # offsets at the log's end that are looked through
RESTORED = "restored: "
"""What the reason of such a halt begins with."""


async def forgotten(connection: Connection, reader: LogReader, topic: str, partition: int) -> str | None:
    """What the ledger has forgotten of the newest entries of a partition, in one line; None: nothing. Raises what
    asyncpg raises, LogAway."""
    timeline = await connection.fetchval("select timeline from ledger_meta")
    newest = await _newest(reader, topic, partition, timeline)
    rows = await connection.fetch(query("history.sequences"), list(newest))
    known = {row["id"]: row["ledger_seq"] for row in rows}
    for account, seq in newest.items():
        if known.get(account, 0) < seq:
            has = f"is at {known[account]}" if account in known else "does not have the account"
            return f"entry {seq} of account {account} was published, the ledger {has}"
    return None


async def _newest(reader: LogReader, topic: str, partition: int, timeline: str) -> Mapping[str, int]:
    start, end = await reader.bounds(topic, partition)
    newest: dict[str, int] = {}
    async with aclosing(reader.read(topic, partition, max(start, end - TAIL), end)) as records:
        async for found in records:
            try:
                entry = decode_entry(found.value)
            except MalformedMessage:  # the in-flight consumer halts there
                continue
            if entry.timeline == timeline:
                newest[entry.account] = max(entry.ledger_seq, newest.get(entry.account, 0))
    return newest


async def suspected(pool: Pool) -> str | None:
    """Why this ledger is believed to be an earlier state of itself, None while it is not."""
    row = await fetchrow(pool, query("history.suspected"))
    return None if row is None else row["suspected"]


async def suspect(pool: Pool, why: str) -> None:
    """Halt settlement and freeze recharge until `billing ledger restored`, or `billing halts lift` where it was a false
    alarm. Recorded once. Raises what asyncpg raises."""

    async def work(connection: Connection) -> bool:
        if await connection.fetchval(query("history.suspect"), why) is None:
            return False
        await connection.execute(query("history.halt_all"), RESTORED + why)
        await record(connection, NewFinding("ledger_restored", detail={"why": why}))
        return True

    if await in_transaction(pool, work):
        log.error("ledger.restored", why=why)
    metrics.suspected.set(1)


class Gate:
    """What the relay asks before it publishes a partition's entries: is this still the ledger that published what is
    there?"""

    def __init__(self, pool: Pool, reader: LogReader, topic: str) -> None:
        self._pool = pool
        self._reader = reader
        self._topic = topic

    async def __call__(self, partition: int) -> bool:
        """Raises what asyncpg raises, LogAway: then nothing is known, and nothing may be published."""
        if await suspected(self._pool) is not None:
            metrics.suspected.set(1)
            return False
        metrics.suspected.set(0)
        async with lease(self._pool) as connection:
            why = await forgotten(connection, self._reader, self._topic, partition)
        if why is not None:
            await suspect(self._pool, why)
        return why is None


async def timelines(pool: Pool) -> list[str]:
    """Every timeline that this ledger had, the present one last."""
    return [row["timeline"] for row in await fetch(pool, query("history.timelines"))]
