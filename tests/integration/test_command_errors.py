"""The command's errors are one line on stderr and exit code 2; nothing stands beside the JSON on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_runner import billing
from redis.asyncio import Redis

from billing import operations
from billing.settings import Settings


@pytest.mark.parametrize("words", [("migrate",), pytest.param(("publish",), marks=pytest.mark.slow)])
async def test_kafka_away_is_one_line(settings: Settings, tmp_path: Path, words: tuple[str, ...]) -> None:
    if words == ("publish",):
        events = tmp_path / "events.jsonl"
        events.write_text("{}\n")
        words = ("publish", str(events))
    code, out, err = await billing(settings, *words, "--json", BILLING_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("billing: Kafka: ")


async def test_r01_an_unknown_store_is_not_asked_whether_an_account_exists(settings: Settings) -> None:
    """Exit code 2 where there is no such account anywhere; Unknown only for one that the ledger has."""
    assert isinstance(await operations.migrate(settings), operations.Prepared)
    async with Redis.from_url(settings.redis_url) as client:
        async for key in client.scan_iter(f"{settings.key_prefix}*"):
            await client.delete(key)
    code, out, err = await billing(settings, "balance", "nobody", "--json")
    assert (code, out, err) == (2, "", "billing: there is no account 'nobody'\n")
    code, out, _ = await billing(
        settings, "balance", "nobody", "--json", BILLING_POSTGRES_DSN="postgresql://127.0.0.1:1/x"
    )
    assert (code, json.loads(out)["status"]) == (0, "unknown")
