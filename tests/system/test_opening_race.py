"""Usage in the race with the opening of its account (S46)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import asyncpg
from aiokafka import AIOKafkaProducer
from system_harness import RunPipeline

from billing.lab.books import Ledger, Store
from billing.lab.expected import SessionKey
from billing.lab.pipeline import Pipeline
from billing.lab.prepare import open_accounts
from billing.lab.waiting import until
from billing.lab.wire import envelope, message
from billing.ledger.terms import NewAccount
from billing.settings import Settings

LOOKUP_MICROS = 8_000  # us-standard, one look-up
ACCOUNTS = [f"race-{number:02d}" for number in range(40)]
CREDIT_MICROS = 50_000_000


@dataclass
class _Sent:
    """Acknowledged records: (account, session) to offset in the home partition."""

    offsets: dict[tuple[str, str], int] = field(default_factory=dict)
    stop: bool = False


async def _use_all_the_time(settings: Settings, sent: _Sent) -> None:
    """Look-ups of every account, opened or not, until told to stop."""
    rng = random.Random(46)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        number = 0
        while not sent.stop:
            waiting = []
            for account in rng.choices(ACCOUNTS, k=20):
                number += 1
                item = {"item_id": f"i{number}", "sku": "lookup", "quantity": 1}
                attributes = envelope("usage.item.completed.v1", f"e{number}", account, int(time.time() * 1000))
                record = message(attributes, item, "structured")
                future = await producer.send(
                    settings.topics.usage, value=record.value, key=record.key, headers=list(record.headers)
                )
                waiting.append((account, f"i{number}", future))
            for account, session, future in waiting:
                sent.offsets[account, session] = (await future).offset
            await asyncio.sleep(0.01)
    finally:
        await producer.stop()


async def _open_in_pieces(settings: Settings) -> None:
    for begin in range(0, len(ACCOUNTS), 8):
        batch = ACCOUNTS[begin : begin + 8]
        new = [NewAccount(name, currency="USD", plan="us-standard", credit_micros=CREDIT_MICROS) for name in batch]
        await open_accounts(settings, new, timeout_seconds=None)
        await asyncio.sleep(0.3)


async def _until_all_known(pipeline: Pipeline) -> None:
    async def known() -> bool:
        store = await pipeline.books.read_store()
        return not store.unknown and len(store.accounts) == len(ACCOUNTS)

    await until(known, "every account known in Redis", timeout_seconds=30)


async def test_s46_usage_in_the_race_with_its_account_s_opening_ends_with_both_books_agreeing(
    settings: Settings, run_pipeline: RunPipeline
) -> None:
    """What counts is the offset at which the account was opened: below it `unknown_account`, from it on charged."""
    sent = _Sent()
    async with run_pipeline(settings) as pipeline:
        using = asyncio.create_task(_use_all_the_time(settings, sent))
        await until(lambda: len(sent.offsets) > 200, "usage before any account is open")
        await _open_in_pieces(settings)
        more = len(sent.offsets) + 500
        await until(lambda: len(sent.offsets) > more or using.done(), "usage after the last account was opened")
        sent.stop = True
        await using
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        await _until_all_known(pipeline)
        _compare(
            sent, await _opened_at(settings), await pipeline.books.read_store(), await pipeline.books.read_ledger()
        )


async def _opened_at(settings: Settings) -> dict[str, int]:
    connection = await asyncpg.connect(settings.owner_dsn, timeout=10)
    try:
        return {row["id"]: row["usage_position"] for row in await connection.fetch("select * from accounts")}
    finally:
        await connection.close()


def _compare(sent: _Sent, opened_at: dict[str, int], store: Store, ledger: Ledger) -> None:
    charged = {key for key, offset in sent.offsets.items() if offset >= opened_at[key[0]]}
    used = Counter(account for account, _ in charged)
    assert ledger.settled == {SessionKey(account, "item", session): LOOKUP_MICROS for account, session in charged}
    assert Counter(row.reason for row in ledger.dead_letters) == {"unknown_account": len(sent.offsets) - len(charged)}
    for account in ACCOUNTS:
        record = store.accounts[account]
        assert (record.credit, record.used) == (CREDIT_MICROS, used[account] * LOOKUP_MICROS), account
        assert ledger.balances[account] == CREDIT_MICROS - used[account] * LOOKUP_MICROS
    assert len(sent.offsets) - len(charged) > 200
    assert len(charged) > 200
