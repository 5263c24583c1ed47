"""Transactions that lost against another one run again, a bounded number of times (S27)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from billing.ledger.database import ACQUIRE_TIMEOUT_S, Connection, Pool, RollBack, lease
from billing.ledger.trouble import Trouble, trouble_of

Answer = TypeVar("Answer")

MAX_ATTEMPTS = 5
FIRST_PAUSE_S = 0.02  # doubled each time, with jitter


async def in_transaction(pool: Pool, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """`work` inside a READ COMMITTED transaction; RollBack leaves it without effects and is the answer.

    Deadlocks, serialization failures and unique violations (someone else inserted the same just now: the next
    attempt finds it) run again. Raises what asyncpg raises otherwise; a lost connection means an unknown outcome,
    which an idempotent repeat of the request settles.
    """
    pause_s = FIRST_PAUSE_S
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            async with lease(pool, timeout_s=ACQUIRE_TIMEOUT_S) as connection, connection.transaction():
                return await work(connection)
        except RollBack as rolled_back:
            answer: Answer = rolled_back.answer
            return answer
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            lost = isinstance(error, asyncpg.UniqueViolationError) or trouble_of(error) is Trouble.RETRY
            if not lost or attempt == MAX_ATTEMPTS:
                raise
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
        pause_s *= 2
    raise AssertionError("the last attempt answers or raises")
