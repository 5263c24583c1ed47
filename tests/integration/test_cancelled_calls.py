"""S39: a cancellation inside a call of the balance store's client is never lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from billing.balance.client import open_client
from billing.devstack.services import Services

Call = Callable[[Redis], Awaitable[object]]


async def _pipeline(client: Redis) -> object:
    async with client.pipeline(transaction=False) as pipe:
        pipe.ping()
        pipe.dbsize()
        return await pipe.execute()


async def _within_a_deadline(client: Redis) -> object:
    async with asyncio.timeout(5):
        return await client.ping()


@pytest.mark.parametrize("call", [lambda client: client.ping(), _pipeline, _within_a_deadline])
async def test_s39_a_task_in_a_busy_loop_of_calls_ends_when_it_is_cancelled_once(
    services: Services, call: Call
) -> None:
    rng = random.Random(39)
    client = open_client(services.redis_url)

    async def busy() -> None:
        while True:
            await call(client)

    try:
        for _ in range(100):
            task = asyncio.create_task(busy())
            await asyncio.sleep(rng.uniform(0, 0.005))
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=5)
            assert done, "the cancellation was lost"
            assert task.cancelled()
        assert await client.echo("each reply comes to its own call") == b"each reply comes to its own call"
    finally:
        await client.aclose()
