"""The ledger of a benchmark, from outside: its accounts opened, its position, rows, WAL and sizes read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from billing.lab.bench.people import People, application
from billing.lab.bench.results import Written
from billing.lab.prepare import AUTHOR, NotPrepared
from billing.ledger.database import Pool
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.opening import import_accounts
from billing.ledger.terms import Imported

IMPORT_ACCOUNTS = 50_000
IMPORTS_AT_ONCE = 2
TIMEOUT_S = 600.0


class Books:
    """Reads for the benchmark, over a pool of its own."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def positions(self) -> list[int]:
        """Usage offsets that the ledger will take next, by partition."""
        rows = await self.pool.fetch(
            "select next_offset from positions where topic = $1 order by partition", USAGE_TOPIC
        )
        return [row["next_offset"] for row in rows]

    async def settled(self) -> int:
        """Records of usage that the ledger has taken, all partitions."""
        return sum(await self.positions())

    async def written(self) -> Written:
        """Counters so far. Backends tell their rows when they end, or after a second."""
        row = await self.pool.fetchrow(
            """select (select sum(n_tup_ins) from pg_stat_user_tables)::bigint as inserted,
                      (select sum(n_tup_upd) from pg_stat_user_tables)::bigint as updated,
                      (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint as wal_bytes,
                      (select wal_fpi from pg_stat_wal)::bigint as page_images"""
        )
        assert row is not None
        return Written(*row)

    async def gone(self, application: str) -> bool:
        """Whether no backend serves this application any more, so that all of its rows are counted."""
        count: int = await self.pool.fetchval(
            "select count(*) from pg_stat_activity where application_name = $1", application
        )
        return count == 0

    async def usage_bytes(self) -> tuple[int, int]:
        """(bytes of the usage table with its indexes, rows in it, counted)."""
        row = await self.pool.fetchrow(
            """select (select sum(pg_total_relation_size(relid)) from pg_partition_tree('usage'))::bigint as bytes,
                      (select count(*) from usage) as rows""",
            timeout=TIMEOUT_S,
        )
        assert row is not None
        return row["bytes"], row["rows"]

    async def copied_out(
        self, begin: Sequence[int], end: Sequence[int], share: int, shares: int, prefix: str
    ) -> bytes:
        """The usage rows that came of these offsets, binary as COPY takes them, in log order, `prefix` before their
        session ids; of `shares` parts (by partition) one."""
        columns = await self.usage_columns()
        listed = ", ".join(f"'{prefix}' || {name}" if name == "session_id" else name for name in columns)
        spans = [
            f"partition = {p} and log_offset >= {low} and log_offset < {high}"
            for p, (low, high) in enumerate(zip(begin, end, strict=True))
            if p % shares == share
        ]
        parts: list[bytes] = []

        async def take(part: bytes) -> None:
            parts.append(part)

        async with self.pool.acquire(timeout=TIMEOUT_S) as connection:
            await connection.copy_from_query(
                f"select {listed} from usage where {' or '.join(f'({span})' for span in spans)} order by log_offset",
                output=take,
                format="binary",
                timeout=TIMEOUT_S,
            )
        return b"".join(parts)

    async def copy_in(self, rows: bytes) -> int:
        """COPY into the very table, in one transaction; answers how many rows."""
        columns = await self.usage_columns()

        async def source() -> AsyncIterator[bytes]:
            for first in range(0, len(rows), 1 << 18):
                yield rows[first : first + (1 << 18)]

        async with self.pool.acquire(timeout=TIMEOUT_S) as connection:
            status = await connection.copy_to_table(
                "usage", source=source(), columns=columns, format="binary", timeout=TIMEOUT_S
            )
            await connection.execute("select pg_stat_force_next_flush()")  # or they would count as a later drain's
        return int(str(status).rpartition(" ")[2])

    async def usage_columns(self) -> list[str]:
        """Those that are written."""
        rows = await self.pool.fetch(
            """select attname from pg_attribute
                where attrelid = 'usage'::regclass and attnum > 0 and not attisdropped and attgenerated = ''
                order by attnum"""
        )
        return [row["attname"] for row in rows]


@asynccontextmanager
async def open_books(dsn: str) -> AsyncIterator[Books]:
    """Closed afterwards."""
    pool: asyncpg.Pool[Any] = await asyncpg.create_pool(dsn, min_size=1, max_size=8, command_timeout=TIMEOUT_S)
    try:
        yield Books(pool)
    finally:
        await asyncio.wait_for(pool.close(), timeout=10)


async def open_in_ledger(pool: Pool, people: People, say: Callable[[str], None]) -> float:
    """Open everybody, as `billing account import` does; answers accounts a second. What the relay would publish is
    taken out of the outbox, as it does when it has (the benchmark publishes the same itself). Raises NotPrepared."""
    begin = time.monotonic()
    room = asyncio.Semaphore(IMPORTS_AT_ONCE)
    everyone = [person for partition in range(len(people.homes)) for person in people.at_home(partition)]

    async def one(some: Sequence[tuple[str, int]]) -> None:
        async with room:
            new = [application(account, credit_micros) for account, credit_micros in some]
            answer = await import_accounts(pool, new, author=AUTHOR)
            if not isinstance(answer, Imported):
                raise NotPrepared(f"accounts: {answer}")

    async with asyncio.TaskGroup() as tasks:
        for first in range(0, len(everyone), IMPORT_ACCOUNTS):
            tasks.create_task(one(everyone[first : first + IMPORT_ACCOUNTS]))
    seconds = time.monotonic() - begin
    for table in ("outbox", "catalogue_outbox"):
        await pool.execute(f"delete from {table}", timeout=TIMEOUT_S)
    await pool.execute("vacuum (analyze)", timeout=TIMEOUT_S)
    await pool.execute("checkpoint", timeout=TIMEOUT_S)
    say(f"{len(everyone):,} accounts opened in the ledger in {seconds:.0f} s, then vacuumed and checkpointed")
    return len(everyone) / seconds
