"""Rebuilding the balance store of a running deployment, on a Valkey of its own to wipe and kill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from reconcile_harness import CONSUMERS, CREDIT, Deployment, deployed, now
from usage_builders import (
    ACCEPTED,
    CALL,
    DELIVERED,
    ITEM,
    PROGRESSED,
    STARTED,
    accepted,
    call,
    delivered,
    item,
    progressed,
    started,
)

from billing import operations
from billing.balance.balances import Known, Unknown
from billing.balance.library import FUNCTION_VERSION, source
from billing.balance.records import AccountRecord
from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.devstack.valkey import ValkeyServer
from billing.process import Process, Refusal
from billing.reconcile.health import Healthy, Unhealthy
from billing.reconcile.rebuild import RebuildRefused, Rebuilt, rebuild

pytestmark = pytest.mark.asyncio(loop_scope="module")
ITEM_MICROS = 1_150_000


@pytest.fixture(scope="module")
def valkey(module_valkey: Callable[..., ValkeyServer]) -> ValkeyServer:
    """Without persistence: what it had is gone when it is killed."""
    return module_valkey(config={"appendonly": "no"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(services: Services, valkey: ValkeyServer) -> AsyncIterator[Deployment]:
    """One deployment for all of these tests; each has its own accounts and leaves a healthy store."""
    async with (
        isolated(services, partitions=2) as shared,
        deployed(replace(shared, redis_url=valkey.url)) as deployment,
    ):
        deployment.start()
        yield deployment


async def everything(running: Deployment, accounts: list[str]) -> dict[str, object]:
    """What the store says of the accounts, but for the incarnation and positions, which a rebuild may change."""
    said: dict[str, object] = {}
    for account in accounts:
        known = await running.balance(account)
        said[account] = (_place_less(known), await running.holds(account))
    return said


async def busy_account(running: Deployment) -> str:
    """With credits, a debit that is not usage (R5), charges, and holds: a started call, one that progressed,
    a message, one completed, one that came back to life after it was completed."""
    account = await running.open()
    await running.credit(account, 3_000_000)
    await running.debit(account, 250_000)
    await running.publish(account, STARTED, started(call_id="started"))
    await running.publish(account, STARTED, started(call_id="progressed"))
    await running.publish(account, PROGRESSED, progressed(90, call_id="progressed", answered_at=now()))
    await running.publish(account, PROGRESSED, progressed(30, call_id="progressed", answered_at=now()))
    await running.publish(account, ACCEPTED, accepted(message_id="waiting"))
    await running.publish(account, STARTED, started(call_id="done"))
    await running.publish(account, CALL, call(call_id="done"))
    await running.publish(account, PROGRESSED, progressed(60, call_id="done", answered_at=now()))
    await running.publish(account, DELIVERED, delivered(message_id="sent", accepted_at=now()))
    await running.publish(account, ITEM, item(item_id="bought"))
    return account


async def test_rebuild_of_a_healthy_store_changes_nothing(running: Deployment) -> None:
    accounts = [await busy_account(running) for _ in range(4)]
    await running.until_settled()
    before = await everything(running, accounts)
    assert (await running.balance(accounts[0])).excluded_micros == 250_000
    held = {hold.session: hold.elapsed for hold in await running.holds(accounts[0])}
    assert held == {"started": 0, "progressed": 90, "waiting": 0}
    incarnation = (await running.identity()).incarnation
    stages: list[tuple[str, int, int]] = []
    answer = await rebuild(running.settings, progress=lambda *stage: stages.append(stage))
    assert isinstance(answer, Rebuilt)
    assert [name for name, done, total in stages if done == total] == [
        *("fence", "accounts", "settled", "holds", "finish")
    ]
    assert answer.incarnation > (incarnation or 0)
    assert (answer.accounts, answer.holds, answer.settled) == (4, 12, 12)
    assert await running.health() == Healthy(answer.timeline, answer.incarnation)
    await running.until_settled()
    assert await everything(running, accounts) == before
    assert (await running.reconcile()).agreed


async def test_s09_a_store_that_restarts_empty_is_not_trusted_and_comes_back_by_a_rebuild(
    running: Deployment, valkey: ValkeyServer
) -> None:
    """Consumers stop at Uninitialised and go on by themselves; what flowed meanwhile is charged once in both books."""
    account = await busy_account(running)
    await running.until_settled()
    before, holds = await running.balance(account), await running.holds(account)
    valkey.kill()
    await running.publish(account, ITEM, item(item_id="while-down"))
    await valkey.start_async()
    assert isinstance(await running.reader.read_balance(account), Unknown)  # R1: not zero
    assert isinstance(await running.health(), Unhealthy)
    report = await running.reconcile(deadline_s=0.0)
    assert report.unknown == report.accounts > 0
    await running.publish(account, ITEM, item(item_id="while-empty"))
    await running.credit(account, 500)
    await running.until_ledger_settled()
    assert isinstance(await running.reader.read_balance(account), Unknown)
    await running.rebuild()
    await running.until_settled()
    after = await running.balance(account)
    assert after.used_micros == before.used_micros + 2 * ITEM_MICROS
    assert after.credit_micros == before.credit_micros + 500
    assert await running.holds(account) == holds
    assert (await running.reconcile()).agreed


async def test_r7_duplicates_are_still_recognised_after_a_wipe_and_rebuild(running: Deployment) -> None:
    account = await busy_account(running)
    await running.until_settled()
    await running.functions.client.flushall()
    await running.rebuild()
    await running.until_settled()
    before = await everything(running, [account])
    await running.publish(account, CALL, call(call_id="done"))
    await running.publish(account, DELIVERED, delivered(message_id="sent", accepted_at=now()))
    await running.publish(account, ITEM, item(item_id="bought"))
    await running.publish(account, STARTED, started(call_id="done"))
    await running.until_settled()
    assert await everything(running, [account]) == before
    assert (await running.reconcile()).agreed


async def test_r6_the_ledger_is_the_record_credits_and_usage_that_come_during_a_rebuild_included(
    running: Deployment,
) -> None:
    account, stop = await busy_account(running), asyncio.Event()
    await running.until_settled()
    before, derived_before = await running.balance(account), derivations()
    credited = bought = 0

    async def traffic() -> None:
        nonlocal credited, bought
        while not stop.is_set():
            await running.credit(account, 1_000)
            await running.publish(account, ITEM, item(item_id=f"during-{bought}"))
            credited, bought = credited + 1, bought + 1

    await running.functions.client.flushall()
    flowing = asyncio.create_task(traffic())
    late = [await running.open_unseen() for _ in range(3)]
    await running.rebuild()
    late += [await running.open() for _ in range(3)]
    await running.rebuild()  # of a store that is being caught up
    stop.set()
    await flowing
    await running.until_settled()
    after = await running.balance(account)
    assert bought > 3
    assert after.credit_micros == before.credit_micros + credited * 1_000
    assert after.used_micros == before.used_micros + bought * ITEM_MICROS
    assert [(await running.balance(new)).credit_micros for new in late] == [CREDIT] * 6
    assert derivations() == derived_before  # nothing was missed and had to be healed afterwards
    assert (await running.reconcile()).agreed


async def test_s46_usage_passed_before_an_account_was_opened_survives_a_rebuild(running: Deployment) -> None:
    account = f"early-{(await running.identity()).incarnation}"
    await running.publish(account, ITEM, item(item_id="too-early"))
    await running.until_settled()
    await running.functions.client.flushall()
    await running.stop("relay")
    await running.open_unseen(account)
    await running.publish(account, ITEM, item(item_id="in-time"))
    await running.rebuild()
    running.start("relay")
    await running.until_known(account)
    await running.until_settled()
    assert (await running.balance(account)).used_micros == ITEM_MICROS
    assert (await running.reconcile()).agreed


class Interrupted(Exception):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("stage", ["fence", "settled", "finish"])
async def test_an_interrupted_rebuild_leaves_balances_unknown_and_the_next_completes(
    running: Deployment, stage: str
) -> None:
    account = await busy_account(running)
    await running.until_settled()
    before = await everything(running, [account])

    def interrupt(name: str, done: int, total: int) -> None:
        if name == stage and done == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        await rebuild(running.settings, progress=interrupt)
    health = await running.health()
    assert isinstance(health, Unhealthy)
    assert health.reason in ("rebuilding", "incarnation")
    views = [await running.reader.read_partition(partition) for partition in range(2)]
    assert Unknown("rebuilding") in views
    answer = await running.rebuild()
    await running.until_settled()
    assert await everything(running, [account]) == before
    assert (await running.reconcile()).agreed
    keys = [
        key.decode() async for key in running.functions.client.scan_iter(match=f"{running.functions.keys.prefix}:*")
    ]
    assert {key.split(":")[2] for key in keys} == {"meta", str(answer.incarnation)}  # nothing is left behind


@pytest.mark.parametrize("field", ["torn", "incarnation", "halted"])
async def test_a_torn_a_halted_and_a_foreign_store_are_rebuilt(running: Deployment, field: str) -> None:
    account = await busy_account(running)
    await running.until_settled()
    before = await everything(running, [account])
    partition = running.home(account)
    await running.functions.client.hset(running.functions.keys.meta(partition), field, "900")
    answer = await running.reader.read_balance(account)
    assert isinstance(answer, Unknown)
    assert isinstance(await running.health(), Unhealthy)
    rebuilt = await running.rebuild()
    assert rebuilt.incarnation > (900 if field == "incarnation" else 0)
    await running.until_settled()
    assert await everything(running, [account]) == before
    assert (await running.reconcile()).agreed


async def test_s14_a_store_of_other_functions_is_refused_and_comes_over_by_a_rebuild(running: Deployment) -> None:
    """An upgrade whose functions changed, in the steps of docs/recovery.md: nothing is read or written as if it were
    ours. The old functions are these under another version: a store goes by that alone."""
    account = await busy_account(running)
    await running.until_settled()
    before = await running.balance(account)
    await running.stop("inflight")
    await running.functions.client.function_load(source(version="1"), replace=True)
    for partition in range(running.settings.partitions):
        await running.functions.client.hset(running.functions.keys.meta(partition), "version", "1")
    with pytest.raises(Refusal, match=f"function version is 1, expected {FUNCTION_VERSION}; `billing migrate`"):
        await CONSUMERS["inflight"](Process("inflight", running.settings))
    await running.publish(account, ITEM, item(item_id="meanwhile"))
    assert isinstance(await running.reader.read_balance(account), Unknown)
    assert isinstance(await operations.migrate(running.settings), operations.Prepared)
    with pytest.raises(Refusal, match=r"written by function version 1, .*`billing rebuild` brings it over"):
        await CONSUMERS["inflight"](Process("inflight", running.settings))
    assert isinstance(await running.reader.read_balance(account), Unknown)
    assert isinstance(await running.health(), Unhealthy)
    await running.rebuild()
    running.start("inflight")
    await running.until_settled()
    assert (await running.balance(account)).used_micros == before.used_micros + ITEM_MICROS
    assert (await running.reconcile()).agreed


async def test_a_balance_changed_by_hand_is_put_right(running: Deployment) -> None:
    account = await busy_account(running)
    await running.until_settled()
    known = await running.balance(account)
    key = running.functions.keys.data(running.home(account), known.incarnation)[1]
    record = AccountRecord.unpack(await running.functions.client.hget(key, account))
    record.credit += 1_000_000
    record.held = 0
    await running.functions.client.hset(key, account, record.pack())
    assert (await running.reconcile()).different == 1
    await running.rebuild()
    await running.until_settled()
    assert _place_less(await running.balance(account)) == _place_less(known)
    assert (await running.reconcile()).agreed


async def test_two_rebuilds_at_once_refuse(running: Deployment) -> None:
    answers = await asyncio.gather(rebuild(running.settings), rebuild(running.settings))
    assert sorted(type(answer).__name__ for answer in answers) == ["RebuildRefused", "Rebuilt"]
    assert RebuildRefused("another rebuild is running") in answers
    await running.until_settled()
    assert isinstance(await running.health(), Healthy)


async def test_a_halted_ledger_refuses_by_name_and_changes_nothing(running: Deployment) -> None:
    await running.until_settled()
    await running.pool.execute("update positions set halted = 'fingerprint differs' where partition = 1")
    answer = await rebuild(running.settings)
    await running.pool.execute("update positions set halted = null")
    assert answer == RebuildRefused("partition 1 of the ledger is halted: fingerprint differs")
    assert isinstance(await running.health(), Healthy)


async def test_a_ledger_of_another_log_refuses_by_name(running: Deployment) -> None:
    await running.until_settled()
    saved = await running.pool.fetchval("select fingerprint from positions where partition = 0")
    async with running.pool.acquire() as connection:
        await connection.execute("set session_replication_role = replica")  # triggers off: no sink does this
        await connection.execute("update positions set fingerprint = '0:0000000000000000' where partition = 0")
        answer = await rebuild(running.settings)
        await connection.execute("update positions set fingerprint = $1 where partition = 0", saved)
    assert isinstance(answer, RebuildRefused)
    assert f"{running.settings.topics.usage}-0" in answer.reason
    assert isinstance(await running.health(), Healthy)


def derivations() -> float:
    """How often an account had to be derived from the ledger, in this process."""
    return REGISTRY.get_sample_value("billing_balance_derivations_total", {"outcome": "derived"}) or 0.0


def _place_less(known: Known) -> Known:
    return replace(known, incarnation="", positions={}, usage_position=0, log_time_ms=0)
