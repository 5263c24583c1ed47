"""Dead letters published again and given up, with every consumer and the commands as processes (S21, R7, R9)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from command_runner import billing, billing_json
from system_harness import RunPipeline

from billing.deadletters import decide
from billing.deadletters.decide import Decision
from billing.deadletters.letters import Filter, Letter, Place, letters, letters_at
from billing.deadletters.prices import LedgerPrices
from billing.lab.expected import SessionKey
from billing.lab.pipeline import Pipeline
from billing.lab.poison import home_partition
from billing.lab.prepare import open_accounts
from billing.lab.wire import Message, envelope, message
from billing.ledger.database import Pool, open_pool
from billing.ledger.terms import NewAccount
from billing.settings import Settings
from billing.stream.publisher import Delivered, Outgoing, Publisher, PublishFailed
from schemas.reasons import DeadLetterReason

LOOKUP_MICROS = 8_000  # us-standard
UNIT = 1_000_000
DAY_MS = 86_400_000


def item(account: str, number: str, sku: str = "lookup", *, late_ms: int = 0, mode: Any = "structured") -> Message:
    attributes = envelope("usage.item.completed.v1", f"e-{number}", account, int(time.time() * 1000) + late_ms)
    return message(attributes, {"item_id": number, "sku": sku, "quantity": 1}, mode)


async def publish(settings: Settings, *records: Message) -> list[Delivered]:
    async with Publisher(settings.kafka_bootstrap) as publisher:
        return await publisher.publish(
            Outgoing(settings.topics.usage, r.value, r.key, r.headers, r.partition) for r in records
        )


def place(there: Delivered) -> str:
    return f"{there.partition}/{there.offset}"


async def charged(pipeline: Pipeline, account: str) -> tuple[int, int]:
    """What both books say was used, once both have read everything."""
    await pipeline.until_applied(await pipeline.usage_ends())
    store, ledger = await pipeline.books.read_store(), await pipeline.books.read_ledger()
    return store.accounts[account].used, ledger.used[account]


async def open_with_credit(settings: Settings, *accounts: str) -> None:
    new = [NewAccount(account, currency="USD", plan="us-standard", credit_micros=10 * UNIT) for account in accounts]
    await open_accounts(settings, new)


async def test_s21_r7_letters_are_replayed_by_two_operators_at_once_and_charged_once(
    settings: Settings, run_pipeline: RunPipeline
) -> None:
    """Usage of an account that was opened too late, and usage in a wrong partition: found, priced, replayed by four
    commands at once, charged once in both books; each letter says what became of it and who decided."""
    home = home_partition("early", settings.partitions)
    async with run_pipeline(settings) as pipeline:
        await open_with_credit(settings, "early")
        modes = ("structured", "binary")
        late = [item("late", f"late-{n}", mode=modes[n % 2]) for n in range(30)]
        stray = item("early", "stray")._replace(partition=(home + 3) % settings.partitions)
        sent = await publish(settings, *late, late[0], stray)
        await pipeline.until_applied(await pipeline.usage_ends())
        assert len(await billing_json(settings, "dlq", "list", "--account", "late")) == 31
        code, _, err = await billing(settings, "dlq", "replay", place(sent[0]))
        assert (code, "would be refused again: unknown_account" in err) == (2, True)
        await open_with_credit(settings, "late")
        held_up = await billing_json(settings, "dlq", "suspended")
        by_reason = {row["reason"]: row for row in held_up["reasons"]}
        assert by_reason["unknown_account"]["letters"] == 31
        assert by_reason["unknown_account"]["suspended"] == [{"currency": "USD", "amount_micros": 30 * LOOKUP_MICROS}]
        assert held_up["suspended"] == [{"currency": "USD", "amount_micros": 31 * LOOKUP_MICROS}]
        dry = await billing_json(settings, "dlq", "replay", "--all", "--dry-run")
        assert (dry["would_be_published"], dry["held_up"]) == (32, held_up["suspended"])
        by_hand = ("--by", "ann", "--reason", "opened late")
        done = await asyncio.gather(
            *(billing_json(settings, "dlq", "replay", "--account", "late", *by_hand) for _ in range(3)),
            billing_json(settings, "dlq", "replay", "--letter-reason", "wrong_partition"),
        )
        assert sum(answer["published"] for answer in done) >= 32
        assert await charged(pipeline, "late") == (30 * LOOKUP_MICROS, 30 * LOOKUP_MICROS)
        assert await charged(pipeline, "early") == (LOOKUP_MICROS, LOOKUP_MICROS)
        rows = await billing_json(settings, "dlq", "list")
        assert {row["state"] for row in rows} == {"resolved"}
        assert await billing_json(settings, "dlq", "suspended") == {"reasons": [], "suspended": []}
        shown = await billing_json(settings, "dlq", "show", place(sent[-1]))
        assert (shown["account"], shown["settled_at"], shown["became"]) == ("early", shown["became"], shown["became"])
        assert shown["became"].split("/")[1] == str(home)
        shown = await billing_json(settings, "dlq", "show", place(sent[0]))
        assert [action["kind"] for action in shown["actions"]][:1] == ["asked"]
        assert {(action["by"], action["reason"]) for action in shown["actions"]} == {("ann", "opened late")}
        for dry in ([], ["--dry-run"]):
            code, _, err = await billing(settings, "dlq", "discard", place(sent[0]), "--reason", "too late", *dry)
            assert (code, "taken in" in err) == (2, True)


async def test_r9_a_replayed_letter_that_is_refused_again_goes_on_as_the_new_one(
    settings: Settings, run_pipeline: RunPipeline
) -> None:
    async with run_pipeline(settings) as pipeline:
        await open_with_credit(settings, "early")
        poison = Message(b"early", b"\x1b[31m\xff\x00{", ((("content-type"), b"application/cloudevents+json"),))
        sent = await publish(
            settings, item("early", "u", "unicorn"), item("early", "old", late_ms=-100 * DAY_MS), poison
        )
        await pipeline.until_applied(await pipeline.usage_ends())
        unicorn, old, broken = map(place, sent)
        code, _, err = await billing(settings, "dlq", "replay", unicorn)
        assert (code, "refused again: no_price" in err) == (2, True)
        code, _, err = await billing(settings, "dlq", "replay", old, "--anyway")
        assert (code, "too old" in err) == (2, True)
        answer = await billing_json(settings, "dlq", "replay", unicorn, "--anyway", "--by", "ann", "--reason", "to see")
        assert (answer["published"], answer["refused_again"]) == (1, 1)
        first = await billing_json(settings, "dlq", "show", unicorn)
        again = await billing_json(settings, "dlq", "show", first["became"])
        assert (first["state"], again["state"], again["replay_of"]) == (
            "refused_again",
            "open",
            f"usage.events/{unicorn}",
        )
        assert (first["value_base64"], first["headers"]) == (again["value_base64"], again["headers"])
        # two operators with a filter, one a moment later: neither replays what came of a replay
        answers = await asyncio.gather(
            *(billing_json(settings, "dlq", "replay", "--letter-reason", "no_price", "--anyway") for _ in range(2))
        )
        assert {(answer["published"], answer["held_back"]) for answer in answers} == {(0, 1)}
        code, out, _ = await billing(settings, "dlq", "show", broken)
        assert code == 0
        assert "\\x1b[31m\\xff\\x00{" in out  # no terminal takes it for a command
        assert "\x1b" not in out
        gone = ("dlq", "discard", "--all", "--by", "ann", "--reason", "never mind")
        assert (await billing_json(settings, *gone, "--dry-run"))["would_be_discarded"] == 3
        assert (await billing_json(settings, *gone))["discarded"] == 3
        options = ("--reason", "--letter-reason")
        found = [await billing_json(settings, "dlq", "list", option, "no_price") for option in options]
        assert found[0] == found[1] != []
        assert (await billing_json(settings, "dlq", "discard", "--all", "--reason", "again"))["discarded"] == 0
        code, _, err = await billing(settings, "dlq", "replay", broken, "--anyway")
        assert (code, "discarded" in err) == (2, True)
        assert await charged(pipeline, "early") == (0, 0)


class Outlet:
    """Kafka, with the command dying after it has answered, or losing its answer."""

    def __init__(self, publisher: Publisher, error: BaseException | None) -> None:
        self.publisher, self.error = publisher, error

    async def publish(self, records: Sequence[Outgoing]) -> list[Delivered]:
        delivered = await self.publisher.publish(records)
        if self.error is not None:
            raise self.error
        return delivered


@pytest.mark.parametrize("error", [PublishFailed("the answer was lost", 0), ConnectionError("killed")])
async def test_r7_a_replay_that_died_before_it_was_marked_is_repeated_harmlessly(
    settings: Settings, run_pipeline: RunPipeline, error: Exception
) -> None:
    async with run_pipeline(settings) as pipeline, Publisher(settings.kafka_bootstrap) as publisher:
        (there,) = await publish(settings, item("late", "one"))
        await pipeline.until_applied(await pipeline.usage_ends())
        await open_with_credit(settings, "late")
        pool = await open_pool(settings.owner_dsn, max_size=2)
        try:
            letter = await _letter(pool, there)
            planned, held = await decide.plan(
                LedgerPrices(pool, settings.partitions), [letter], int(time.time() * 1000), anyway=False
            )
            assert held == []
            dying = decide.Replay(pool, Outlet(publisher, error), settings.topics.usage, Decision("ann", "x"))
            with suppress(ConnectionError):
                assert (await dying.publish(planned)).unknown == [letter.place]
            assert (await _letter(pool, there)).state == "replaying"
            code, _, err = await billing(settings, "dlq", "discard", place(there), "--reason", "given up")
            assert (code, "replay it again first" in err) == (2, True)
            assert (await billing_json(settings, "dlq", "replay", place(there)))["resolved"] == 1
            assert await charged(pipeline, "late") == (LOOKUP_MICROS, LOOKUP_MICROS)
            ledger = await pipeline.books.read_ledger()
            assert ledger.settled == {SessionKey("late", "item", "one"): LOOKUP_MICROS}
            assert ledger.findings == []
            which = Filter(reason=DeadLetterReason.UNKNOWN_ACCOUNT, account="late", topic="usage.events")
            assert [found.state async for found in letters(pool, which)] == ["resolved"]
        finally:
            pool.terminate()


async def _letter(pool: Pool, there: Delivered) -> Letter:
    (letter,) = await letters_at(pool, [Place("usage.events", there.partition, there.offset)])
    return letter


async def test_s21_poison_is_stored_with_the_position_when_post_flight_is_killed_in_between(
    settings: Settings, run_pipeline: RunPipeline
) -> None:
    """Killed while its transaction waits to store the dead letters: neither they nor the position are there; started
    again, both are, once, and the money that they hold up is shown."""
    async with run_pipeline(settings) as pipeline:
        await open_with_credit(settings, "early")
        pool = await open_pool(settings.owner_dsn, max_size=3)
        try:
            async with pool.acquire() as connection:
                blocking = connection.transaction()
                await blocking.start()
                await connection.execute("lock table dead_letters in exclusive mode")
                sound = [item("early", f"fine-{n}") for n in range(20)]
                poison = [
                    item("nobody", "p1"),
                    item("early", "p2")._replace(key=b"somebody"),
                    sound[3]._replace(value=b""),
                ]
                home = home_partition("early", settings.partitions)
                sent = await publish(
                    settings, *(r._replace(partition=home) for r in (*sound[:10], *poison, *sound[10:]))
                )
                await _until_blocked(pool)
                await pipeline.supervisor.kill("postflight")
                await blocking.rollback()
            assert await pool.fetchval("select count(*) from dead_letters") == 0
            assert (await pipeline.books.postflight_positions())[home] <= sent[10].offset
            pipeline.supervisor.restart("postflight")
            assert await charged(pipeline, "early") == (20 * LOOKUP_MICROS, 20 * LOOKUP_MICROS)
        finally:
            pool.terminate()
        rows = await billing_json(settings, "dlq", "list")
        assert [row["offset"] for row in rows] == [there.offset for there in sent[10:13]]
        held_up = await billing_json(settings, "dlq", "suspended")
        assert held_up["suspended"] == [{"currency": "USD", "amount_micros": LOOKUP_MICROS}]
        unpriced = {row["reason"]: row["unpriced"] for row in held_up["reasons"]}
        assert [why["letters"] for why in unpriced["wrong_partition"]] == [1]
        asked = ("dlq", "discard", "--all", "--dry-run", "--by", "test", "--reason", "test")
        dry = await billing_json(settings, *asked)
        unknown = sum(why["letters"] for reasons in unpriced.values() for why in reasons)
        assert (dry["held_up"], dry["unpriced"]) == (held_up["suspended"], unknown)
        assert f"that of {unknown} that cannot be priced" in (await billing(settings, *asked))[1]


async def _until_blocked(pool: Pool) -> None:
    async with asyncio.timeout(20):
        while not await pool.fetchval(  # noqa: ASYNC110 - the server sends no event
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.02)
