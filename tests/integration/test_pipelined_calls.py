"""S39: calls that share a connection: each reply comes to its own call, whatever became of the others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from balance_harness import PARTITION, Store, batch, charge, entries, opened

from billing.balance.balances import Known
from billing.balance.pipelined import Pipelined
from billing.balance.pipelined_calls import PipelinedFunctions
from billing.stream.sink import Applied, Owner, ReadOnly, Unavailable

ACCOUNTS = 40
OWNER = Owner(1, "n")


@pytest.fixture
async def store(private_valkey: Callable[..., Any]) -> AsyncIterator[Store]:
    """Accounts a0, a1, … with credit 100, 101, …, on a server of the test's own."""
    async with Store.open(private_valkey().url) as store:
        await store.start()
        await store.claimed()
        made = [opened(f"a{number}", credit=100 + number) for number in range(ACCOUNTS)]
        assert await store.sink.apply(entries(OWNER, 0, made)) == Applied(ACCOUNTS)
        yield store


def pipe_of(store: Store) -> Pipelined:
    functions = store.functions
    assert isinstance(functions, PipelinedFunctions)
    (pipe,) = functions._pipes.values()
    return pipe


async def test_s39_replies_come_to_their_own_calls_though_others_are_cancelled(store: Store) -> None:
    rng = random.Random(39)
    wire = pipe_of(store)._wire
    for _ in range(20):
        reads = [asyncio.create_task(store.reader.read_balance(f"a{number}")) for number in range(ACCOUNTS)]
        await asyncio.sleep(rng.uniform(0, 0.004))
        cancelled = [read for read in reads if rng.random() < 0.5 and read.cancel()]
        await asyncio.wait(reads)
        for number, read in enumerate(reads):
            if read.cancelled():
                assert read in cancelled
            else:
                answer = read.result()
                assert isinstance(answer, Known)
                assert answer.credit_micros == 100 + number
    assert pipe_of(store)._wire is wire, "a cancellation cost the others their connection"


async def test_s39_a_connection_that_was_silent_for_the_deadline_is_not_used_again(store: Store) -> None:
    wire = pipe_of(store)._wire
    store.functions._timeout_s = pipe_of(store)._silent_s = 0.3
    made = batch(OWNER, 0, 1, [charge(0, "a1", "s1", 5)])
    await store.client.client_pause(400, all=True)
    assert await store.sink.apply(made) == Unavailable("timeout")
    store.functions._timeout_s = 5.0
    answer = await store.sink.apply(made)  # behind the pause; what the first one did is for the position to say
    assert answer == Applied(1) or type(answer).__name__ == "Behind"
    assert pipe_of(store)._wire is not wire
    known = await store.reader.read_balance("a1")
    assert isinstance(known, Known)
    assert known.used_micros == 5


async def test_s05_a_server_that_is_no_primary_is_left(store: Store, private_valkey: Callable[..., Any]) -> None:
    """Its connection would stay with it for ever, wherever the primary is by then."""
    wire = pipe_of(store)._wire
    await store.client.replicaof("127.0.0.1", private_valkey().port)
    answer = await store.sink.apply(batch(OWNER, 0, 1, []))
    assert answer == ReadOnly("READONLY") or isinstance(answer, Unavailable)
    await store.client.replicaof("NO", "ONE")
    await store.sink.claim(PARTITION, "m")
    assert pipe_of(store)._wire is not wire
