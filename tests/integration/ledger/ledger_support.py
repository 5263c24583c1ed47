"""What the ledger's tests share: accounts of a wanted partition, batches, books."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from billing.ledger.database import Pool
from billing.ledger.opening import open_account
from billing.ledger.sink import PostgresSink
from billing.ledger.terms import NewAccount, Opened
from billing.ledger.verify import verify
from billing.settings import Settings
from billing.stream.record import StoredRecord, fingerprint
from billing.stream.sink import Applied, ApplyAnswer, Batch, Claimed, Owner
from billing.usage.ops import Charge, DeadLetter, Stray, UsageOp
from billing.usage.partitioner import home_partition
from schemas.catalogue import Rate
from schemas.reasons import DeadLetterReason

AUTHOR = "tests"
RATES = (
    Rate(
        kind="call",
        direction="outbound",
        match="49",
        rate_micros=600_000,
        first_increment_seconds=60,
        next_increment_seconds=6,
        connect_fee_micros=0,
        minimum_charge_micros=0,
        description="Germany",
    ),
)


def names(partition: int, count: int, prefix: str = "acct", partitions: int = 8) -> list[str]:
    """`count` account ids whose home is `partition`."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        if home_partition(f"{prefix}-{number}", partitions) == partition:
            found.append(f"{prefix}-{number}")
        number += 1
    return found


def record(offset: int, partition: int = 0, value: bytes | None = b"{}", key: bytes | None = b"k") -> StoredRecord:
    return StoredRecord("usage.events", partition, offset, 1_000_000 + offset, key, value, (("ce_id", b"\xff"),))


def charge(offset: int, account: str, session: str, amount_micros: int = 600_000, **changes: Any) -> Charge:
    fields: dict[str, Any] = {
        "offset": offset,
        "log_time_ms": 1_000_000 + offset,
        "account": account,
        "kind": "call",
        "session": session,
        "amount_micros": amount_micros,
        "currency": "USD",
        "plan": "basic",
        "tariff_version": 1,
        "price_time_ms": 900_000,
        "tariff_kind": "call",
        "direction": "outbound",
        "destination": "+4930123456",
        "origin": "+4940123456",
        "quantity": 60,
        "status": "completed",
        "matched": "49",
        "event_id": f"e{offset}",
        "event_source": "tests",
    }
    return Charge(**(fields | changes))


def dead_letter(offset: int, partition: int = 0, value: bytes = b"\x00not json") -> DeadLetter:
    return DeadLetter(record(offset, partition, value), DeadLetterReason.NOT_JSON, "line 1")


def stray(offset: int, account: str, partition: int = 0) -> Stray:
    return Stray(record(offset, partition, key=account.encode()), account, offset)


@dataclass
class Ledger:
    """A migrated ledger with plan basic (USD), and a sink on it. `pool` is the owner's, for what only a test does to a
    ledger; the sink and `runtime` are the consumers' role."""

    settings: Settings
    pool: Pool
    sink: PostgresSink
    runtime: Pool

    async def claim(self, partition: int = 0) -> Owner:
        answer = await self.sink.claim(partition, "tests")
        assert isinstance(answer, Claimed), answer
        return answer.owner

    async def open(self, *accounts: str, **terms: Any) -> list[Opened]:
        opened = []
        for account in accounts:
            answer = await open_account(self.runtime, NewAccount(account, "USD", "basic", **terms), author=AUTHOR)
            assert isinstance(answer, Opened), answer
            opened.append(answer)
        return opened

    async def settle(self, owner: Owner, start: int, ops: Sequence[UsageOp], partition: int = 0) -> int:
        """Apply in one batch that ends one past the highest offset; returns the new position."""
        batch = make_batch(owner, start, ops, partition)
        answer = await self.sink.apply(batch)
        assert answer == Applied(batch.to_offset), answer
        return batch.to_offset

    async def verified(self) -> None:
        failed = [check for check in await verify(self.pool) if not check.passed]
        assert failed == []

    async def used(self, account: str) -> int:
        return await self.pool.fetchval("select used_micros from balances where account_id = $1", account)

    async def count(self, table: str) -> int:
        return await self.pool.fetchval(f"select count(*) from {table}")


def offset_of(op: UsageOp) -> int:
    return op.record.offset if isinstance(op, DeadLetter) else op.offset


def make_batch(
    owner: Owner, start: int, ops: Sequence[UsageOp], partition: int = 0, *, caught_up: bool = False
) -> Batch[UsageOp]:
    last = max(map(offset_of, ops), default=start)
    return Batch(
        owner=owner,
        topic="usage.events",
        partition=partition,
        from_offset=start,
        to_offset=last + 1,
        fingerprint=fingerprint(record(last, partition)),
        log_time_ms=1_000_000 + last,
        ops=ops,
        caught_up=caught_up,
    )


async def eventually(condition: Any, timeout_s: float = 10.0) -> None:
    """Wait until the coroutine function `condition` answers true."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - the server decides, it sends no event
            await asyncio.sleep(0.02)


async def blocked_on_lock(pool: Pool, count: int = 1) -> None:
    """Wait until `count` sessions of this database wait for a lock."""

    async def waiting() -> bool:
        found: int = await pool.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        return found >= count

    await eventually(waiting)


def answers(results: Iterable[ApplyAnswer], kind: type) -> int:
    return sum(isinstance(result, kind) for result in results)
