"""`billing guard` and the watcher of a consumer, against a whole deployment's ledger and a store of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from command_runner import billing
from guard_harness import DETECTED_S, Factory, until_refused
from redis.asyncio import Redis

from billing import operations
from billing.devstack.postgres import PostgresServer
from billing.devstack.valkey import ValkeyServer
from billing.guard.watch import guard_of, guarding
from billing.settings import Settings


@pytest.fixture
async def deployment(settings: Settings, private_valkey: Factory) -> tuple[Settings, ValkeyServer]:
    """Migrated, its balance store on a private server."""
    server = private_valkey()
    settings = replace(settings, redis_url=server.url)
    prepared = await operations.migrate(settings)
    assert isinstance(prepared, operations.Prepared)
    return settings, server


async def guard(settings: Settings, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `billing guard`."""
    return await billing(settings, "guard", *arguments, **environ)


async def test_s08_s44_the_command_says_what_it_found_and_what_to_do(deployment: tuple[Settings, ValkeyServer]) -> None:
    settings, server = deployment
    code, out, _ = await guard(settings)
    assert (code, out.splitlines()[0].split(" (")[0]) == (0, "balance store healthy")
    async with Redis.from_url(server.url) as client:
        await client.config_set("appendonly", "no")
    code, out, _ = await guard(settings)
    assert code == 1
    assert "NOT healthy: no recharge, no suspension" in out
    assert "refuses persistence_off: the AOF is off, and no snapshots are made" in out
    assert "Do not restart it before that." in out
    assert "warns   config_file_differs: appendonly is 'no', the file has 'yes'" in out
    assert (await guard(settings, BILLING_EXPECT_PERSISTENCE="off"))[0] == 0
    code, _, err = await guard(settings, BILLING_EXPECT_PERSISTENCE="maybe")
    assert (code, err) == (2, "billing: BILLING_EXPECT_PERSISTENCE must be on, aof or off, got 'maybe'\n")


async def test_json_is_complete(deployment: tuple[Settings, ValkeyServer]) -> None:
    settings, server = deployment
    async with Redis.from_url(server.url) as client:
        await client.flushall()
    code, out, _ = await guard(settings, "--json")
    answer: dict[str, Any] = json.loads(out)
    assert code == 1
    assert (answer["healthy"], answer["reasons"], answer["warnings"]) == (False, ["empty"], [])
    assert answer["findings"][0]["severity"] == "refuses"
    assert "billing rebuild" in answer["findings"][0]["advice"]
    assert answer["seen"]["partitions"] == {"known": 0, "unknown": settings.partitions}


async def test_s08_a_consumers_watcher_is_ready_at_once_and_notices_in_time(
    deployment: tuple[Settings, ValkeyServer],
) -> None:
    settings, server = deployment
    async with guarding(settings) as watcher, Redis.from_url(server.url) as client:
        assert watcher.verdict().healthy, watcher.verdict().reason
        assert watcher.verdict().seen["incarnation"] == 1
        await client.replicaof("127.0.0.1", server.port)
        assert await until_refused(watcher) == ("replica_of_itself", "replica", "read_only")


async def test_a_ledger_that_is_away_or_not_migrated_refuses(settings: Settings) -> None:
    async with guarding(settings) as watcher:
        assert watcher.verdict().reasons[0] == "ledger_unknown"
        assert "not migrated" in watcher.verdict().reason
    async with guarding(replace(settings, postgres_dsn="postgresql://postgres@127.0.0.1:1/none")) as watcher:
        assert watcher.verdict().reasons[0] == "ledger_unknown"
        assert "no answer" in watcher.verdict().reason


async def test_r11_a_ledger_that_hangs_delays_no_look(
    deployment: tuple[Settings, ValkeyServer], private_postgres: Callable[..., PostgresServer]
) -> None:
    settings, _ = deployment
    ledger = private_postgres()
    settings = replace(settings, postgres_dsn=ledger.url, postgres_owner_dsn="")
    assert isinstance(await operations.migrate(settings), operations.Prepared | operations.NotPrepared)
    async with guard_of(settings) as found:
        ledger.pause()  # it takes no new connections
        try:
            for _ in range(2):
                began = time.monotonic()
                assert (await found.look()).reasons[0] == "ledger_unknown"
                assert time.monotonic() - began < DETECTED_S
        finally:
            ledger.resume()
        assert "ledger_unknown" not in (await found.look()).reasons
