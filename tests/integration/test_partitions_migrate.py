"""Going over to more partitions (S16): what is in the way, and a migration that dies after each of its steps."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from reconcile_harness import CONSUMERS, CREDIT, Deployment, deployed, now
from usage_builders import (
    ACCEPTED,
    CALL,
    ITEM,
    PROGRESSED,
    STARTED,
    STRUCTURED,
    accepted,
    call,
    envelope,
    item,
    progressed,
    started,
)

from billing import operations
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.snapshot import AccountSnapshot
from billing.deadletters import decide, letters
from billing.deadletters.decide import Decision
from billing.deadletters.letters import Letter
from billing.deadletters.prices import LedgerPrices
from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.ledger.database import open_pool
from billing.ledger.queries import query
from billing.ledger.snapshots import NEVER_CHARGED, account_snapshot
from billing.ledger.statement import Month, Statement, statement
from billing.ledger.usage import usage_of
from billing.ledger.verify import verify
from billing.partitions.look import Standing, look
from billing.partitions.migrate import Migrated, NotMigrated, migrate, plan
from billing.process import Process, Refusal
from billing.reconcile.rebuild import RebuildRefused, rebuild
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.publisher import Outgoing, Publisher
from billing.usage.partitioner import home_partition

BEFORE, AFTER = 2, 3  # accounts move to the new partition, and between the old ones
ITEM_MICROS = 1_150_000
CALL_MICROS = 22_000
STEPS = ("settled", "topics", "settled again", "moved", "published", "rebuilt")


class Died(Exception):
    """The command was killed here."""


def account_of(before: int, after: int) -> str:
    """A new account with these homes."""
    while True:
        name = f"acct-{uuid.uuid4().hex[:12]}"
        if (home_partition(name, BEFORE), home_partition(name, AFTER)) == (before, after):
            return name


@asynccontextmanager
async def going_on(settings: Settings) -> AsyncIterator[Deployment]:
    """The deployment as it is, with these settings."""
    pool = await open_pool(settings.owner_dsn, max_size=4)
    client = open_client(settings.redis_url)
    try:
        async with LogReader(settings.kafka_bootstrap) as log, Publisher(settings.kafka_bootstrap) as out:
            deployment = Deployment(settings, pool, Functions(client, settings.key_space), log, out)
            try:
                yield deployment
            finally:
                await deployment.stop()
    finally:
        await client.aclose()
        await asyncio.wait_for(pool.close(), 10)


async def run(settings: Settings, *, dying_at: str = "") -> Migrated | NotMigrated:
    """The command, killed when it has done the step `dying_at`."""

    def said(step: str, _detail: str) -> None:
        if step == dying_at:
            raise Died

    return await migrate(settings, AFTER, author="test", reason="more", said=said)


async def standing(settings: Settings, deployment: Deployment) -> Standing:
    async with LogReader(settings.kafka_bootstrap) as reader:
        return await look(settings, deployment.pool, reader)


async def begin(running: Deployment, account: str) -> None:
    """A charge, and three sessions that hold something."""
    await running.open(account)
    await running.publish(account, ITEM, item(item_id="one"))
    await running.publish(account, STARTED, started(call_id="held"))
    await running.publish(account, PROGRESSED, progressed(90, call_id="held", answered_at=now()))
    await running.publish(account, ACCEPTED, accepted(message_id="waiting"))


async def look_at(running: Deployment, account: str) -> tuple[int, int, dict[str, int]]:
    """Credit, used, and what each open session holds."""
    known = await running.balance(account)
    assert known.held_micros == sum(hold.amount_micros for hold in await running.holds(account))
    return known.credit_micros, known.used_micros, {h.session: h.amount_micros for h in await running.holds(account)}


async def dead_letters(running: Deployment) -> list[Letter]:
    return [letter async for letter in letters.letters(running.pool)]


async def replay(running: Deployment, found: list[Letter]) -> None:
    prices = LedgerPrices(running.pool, running.settings.partitions)
    planned, held = await decide.plan(prices, found, int(time.time() * 1000), anyway=False)
    assert not held
    async with Publisher(running.settings.kafka_bootstrap) as out:
        decision = Decision("test", "after the migration")
        await decide.Replay(running.pool, out, running.settings.topics.usage, decision).publish(planned)


async def publish_to(running: Deployment, partition: int, account: str, data: dict[str, Any]) -> None:
    """A producer with another partitioner."""
    event = envelope(ITEM, data, subject=account, id=uuid.uuid4().hex, time=now())
    outgoing = Outgoing(
        running.settings.topics.usage, json.dumps(event).encode(), account.encode(), STRUCTURED, partition
    )
    async with Publisher(running.settings.kafka_bootstrap) as out:
        await out.publish([outgoing])


async def refused(settings: Settings, name: str) -> str:
    """What the consumer says when it refuses."""
    with pytest.raises(Refusal) as refusal:
        await asyncio.wait_for(CONSUMERS[name](Process(name, settings)), 20)
    return str(refusal.value)


@pytest.fixture
async def old(services: Services) -> AsyncIterator[Settings]:
    async with isolated(services, partitions=BEFORE) as fresh:
        yield fresh


async def test_s16_what_is_in_the_way_is_named_and_nothing_is_changed(old: Settings) -> None:
    async with deployed(old) as running:
        account = await running.open_unseen()
        running.start("relay", "postflight")
        await running.publish(account, ITEM, item())
        await running.until_ledger_settled()
        assert {line.split()[0] for line in (await plan(old, AFTER)).refusals} == {"postflight", "relay"}
        assert isinstance(await run(old), NotMigrated)
        await running.stop()
        for to in (1, BEFORE):
            assert (await plan(old, to)).refusals[0].startswith("partitions can only be added")
            refused_ = await migrate(old, to, author="test", reason="fewer", said=lambda *_: None)
            assert isinstance(refused_, NotMigrated) == (to == 1)  # there is nothing to do about the present number
        assert (await plan(old, AFTER)).refusals == ()
        stands = await standing(old, running)
        assert (stands.agreed, stands.migrations, set(stands.topics.values())) == (True, [], {BEFORE})


async def _die_at_every_step(running: Deployment, everybody: Sequence[str]) -> None:
    old, new = running.settings, replace(running.settings, partitions=AFTER)
    for step in STEPS:
        with pytest.raises(Died):
            await run(old, dying_at=step)
        if step == "topics":
            async with going_on(new) as meanwhile:
                for account in everybody:  # a producer that knows of the new partition already
                    await meanwhile.publish(account, ITEM, item(item_id="three"))
        if step == "moved":
            assert not (await standing(new, running)).agreed
            for name in ("inflight", "postflight"):
                for settings in (old, new):
                    assert "billing partitions show" in await refused(settings, name)
            late = await operations.migrate(new)
            assert isinstance(late, operations.NotPrepared)
            assert f"migrate --to {AFTER} --apply" in late.reason
            rebuilt = await rebuild(new)
            assert isinstance(rebuilt, RebuildRefused)
            assert f"migrate --to {AFTER} --apply" in rebuilt.reason


async def _goes_on_as_if_nothing_had_happened(running: Deployment, moved: str, everybody: Sequence[str]) -> None:
    """Sessions from before the move end, or come again, and a stray that knows nothing of it is a dead letter."""
    for account in everybody:
        await running.publish(account, CALL, call(call_id="held", answered_at=now()))
        await running.publish(account, ITEM, item(item_id="one"))  # once more: settled before the move
        await running.credit(account, 500_000)
    await publish_to(running, home_partition(moved, BEFORE), moved, item(item_id="stray"))
    await running.until_settled()
    month = Month.parse(time.strftime("%Y-%m", time.gmtime()))
    assert month is not None
    for account in everybody:
        credit, used, holds = await look_at(running, account)
        assert (credit, used) == (CREDIT + 1_500_000, 3 * ITEM_MICROS + CALL_MICROS)
        assert set(holds) == {"waiting"}
        sessions = [row.session_id async for row in usage_of(running.pool, account, page_size=2)]
        assert sorted(sessions) == ["held", "one", "three", "two"]
        shown = await statement(running.pool, account, month)
        assert isinstance(shown, Statement)
        assert shown.closing_micros == credit - used
    strays = [letter for letter in await dead_letters(running) if letter.state == "open"]
    assert [(letter.reason, letter.account) for letter in strays] == [("wrong_partition", moved)]


async def _due_for_a_charge(running: Deployment, account: str) -> None:
    """What the recharge worker remembers of an account's place in the log: a due row, and an open intent."""
    await running.pool.execute("insert into recharge_due (account_id, usage_position) values ($1, 999)", account)
    await running.pool.execute(query("recharge_intents.ensure_episode"), account)
    values = ("t", "USD", 10_000, 1, "cus_1", "pm_1", 999, None, 0)
    await running.pool.execute(query("recharge_intents.open"), account, *values)


async def _nothing_is_waited_for_that_never_comes(running: Deployment, account: str) -> None:
    """No write proof has to reach a position of the partition before."""
    for table in ("recharge_due", "recharge_intents"):
        text = f"select usage_position from {table} where account_id = $1"
        assert await running.pool.fetchval(text, account) == 0


async def _earlier_stays_came_before(running: Deployment, account: str) -> None:
    """As of the beginning of its new partition an account has used what it used before it moved there."""
    at = await account_snapshot(running.pool, account, home_partition(account, AFTER), 0, 0)
    assert isinstance(at, AccountSnapshot)
    assert (at.used_micros, at.last_charge_offset) == (2 * ITEM_MICROS, NEVER_CHARGED)
    assert sorted(at.settled) == [("item", "one"), ("item", "two")]


async def _books_agree(running: Deployment) -> None:
    assert [check for check in await verify(running.pool) if not check.passed] == []
    assert (await running.reconcile()).agreed


@pytest.mark.slow
async def test_s16_accounts_move_by_a_command_that_may_die_after_every_step(old: Settings) -> None:
    new = replace(old, partitions=AFTER)
    stays, old_to_old, to_new = account_of(0, 0), account_of(0, 1), account_of(1, 2)
    everybody = (stays, old_to_old, to_new)
    async with deployed(old) as running:
        running.start()
        for account in everybody:
            await begin(running, account)
        await running.until_settled()
        before = {account: await look_at(running, account) for account in everybody}
        await running.stop()
        for account in everybody:  # a backlog, and an entry that nobody has published
            await running.publish(account, ITEM, item(item_id="two"))
            await running.credit(account, 1_000_000)
        await _due_for_a_charge(running, to_new)
        planned = await plan(old, AFTER)
        assert (planned.accounts, planned.moving, planned.refusals) == (3, 2, ())
        assert planned.standing.behind >= 3
        await _die_at_every_step(running, everybody)
        assert isinstance(await run(old), Migrated)
        assert await run(new) == Migrated(AFTER, None)
        assert (await standing(new, running)).agreed
        await _nothing_is_waited_for_that_never_comes(running, to_new)
    async with going_on(new) as running:
        running.start()
        await running.until_settled()
        for account, items in ((stays, 3), (old_to_old, 2), (to_new, 3)):
            credit, used, holds = await look_at(running, account)
            assert (credit, used, holds) == (CREDIT + 1_000_000, items * ITEM_MICROS, before[account][2])
        found = await dead_letters(running)
        assert [(letter.reason, letter.account) for letter in found] == [("wrong_partition", old_to_old)]
        await replay(running, found)
        await _goes_on_as_if_nothing_had_happened(running, old_to_old, everybody)
        await _earlier_stays_came_before(running, to_new)
        await _books_agree(running)
        await running.rebuild()
        await running.until_settled()
        assert set((await look_at(running, to_new))[2]) == {"waiting"}
        await _books_agree(running)
        for name in CONSUMERS:
            assert "billing partitions show" in await refused(old, name)
