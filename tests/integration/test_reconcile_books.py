"""Both books of a running deployment, compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from reconcile_harness import CREDIT, Deployment, deployed
from tampering import Tampering
from usage_builders import CALL, ITEM, STARTED, call, item, started

from billing.balance.records import AccountRecord
from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.ledger.opening import import_accounts
from billing.ledger.terms import Imported, NewAccount
from billing.reconcile.books import compare_books
from billing.reconcile.compare import Behind, Different, Missing, Side, Unknown
from billing.reconcile.health import Healthy
from billing.reconcile.report import NAMED, Compared, Report

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(services: Services) -> AsyncIterator[Deployment]:
    """One deployment for all of these tests; each has its own accounts and puts right what it breaks."""
    async with isolated(services, partitions=2) as settings, deployed(settings) as deployment:
        deployment.start()
        yield deployment


def only(found: list[Compared]) -> Compared:
    (one,) = found
    return one


async def test_books_agree_after_usage_and_credits(running: Deployment) -> None:
    account = await running.open()
    await running.publish(account, STARTED, started(call_id="held"))
    await running.publish(account, ITEM, item(item_id="i-1"))
    await running.credit(account, 5_000_000)
    await running.until_settled()
    balance = await running.balance(account)
    assert balance.credit_micros == CREDIT + 5_000_000
    assert balance.used_micros > 0
    assert balance.held_micros > 0
    report = await running.reconcile()
    assert report.agreed, report
    assert report.equal == report.accounts > 0
    assert await running.health() == Healthy((await running.identity()).timeline, 1)


async def test_s46_usage_before_its_account_is_opened_ends_equal_in_both_books(running: Deployment) -> None:
    account = f"early-{(await running.identity()).timeline}"
    await running.publish(account, ITEM, item(item_id="too-early"))
    await running.until_ledger_settled()
    await running.publish(account, ITEM, item(item_id="in-the-race"))
    await running.open(account)
    await running.publish(account, ITEM, item(item_id="in-time"))
    await running.until_settled()
    report = await running.reconcile()
    assert report.agreed, report
    assert (await running.balance(account)).used_micros in (1_150_000, 2 * 1_150_000)


async def test_s42_a_balance_changed_by_hand_is_found(running: Deployment) -> None:
    account = await running.open()
    await running.until_settled()
    tampering = Tampering(running, await running.balance(account))
    genuine = await tampering.read()
    record = AccountRecord.unpack(genuine)
    record.used += 7
    await tampering.write(record.pack())
    report = await running.reconcile()
    assert not report.agreed
    assert report.different == 1
    assert report.accounts == report.equal + 1
    ledger, store = Side(CREDIT, 1, -1, "USD"), Side(CREDIT - 7, 1, -1, "USD")
    assert only(report.named) == Compared(account, running.home(account), Different(-7), ledger, store)
    await tampering.write(genuine)
    assert (await running.reconcile()).agreed


async def test_s42_an_account_missing_on_either_side_is_found(running: Deployment) -> None:
    account = await running.open()
    await running.until_settled()
    tampering = Tampering(running, await running.balance(account))
    genuine = await tampering.read()
    stranger = Tampering(running, replace(await running.balance(account), account="stranger"))
    await stranger.write(genuine)
    await tampering.remove()
    report = await running.reconcile(deadline_s=0.3)
    assert report.missing == 2
    assert {found.account: found.comparison for found in report.named} == {
        account: Missing("store"),
        "stranger": Missing("ledger"),
    }
    await stranger.remove()
    await tampering.write(genuine)
    assert (await running.reconcile()).agreed


async def test_r1_an_unknown_balance_is_named_as_such_until_it_is_derived(running: Deployment) -> None:
    account = await running.open()
    await running.until_settled()
    await running.stop("inflight")
    await Tampering(running, await running.balance(account)).make_unknown("gap", 0)
    report = await running.reconcile(deadline_s=0.3)
    assert report.unknown == 1
    assert only(report.named).comparison == Unknown("gap")
    assert only(report.named).store is None
    running.start("inflight")
    assert (await running.reconcile()).agreed  # looked at again until the owner has derived it


async def test_an_account_that_is_behind_is_looked_at_again(running: Deployment) -> None:
    account = await running.open()
    await running.until_settled()
    await running.stop("inflight")
    await running.publish(account, CALL, call(call_id="late"))
    await running.credit(account, 1)
    await running.until_ledger_settled()
    report = await running.reconcile(deadline_s=0.3)
    assert report.behind == 1
    assert only(report.named).comparison == Behind("store", "entries")
    running.start("inflight")
    report = await running.reconcile()
    assert report.agreed, report


async def test_s42_an_account_in_constant_use_is_compared_all_the_same(running: Deployment) -> None:
    """Two readings of a busy account are never of the same moment; the ledger is asked for the store's moment."""
    busy, wrong = await running.open(), await running.open()
    await running.until_settled()
    tampering = Tampering(running, await running.balance(wrong))
    record = AccountRecord.unpack(genuine := await tampering.read())
    record.credit += 9
    await tampering.write(record.pack())

    stop = asyncio.Event()

    async def use() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            await asyncio.gather(
                running.publish(busy, ITEM, item(item_id=f"b-{n}")),
                running.publish(wrong, ITEM, item(item_id=f"w-{n}")),
            )

    using = asyncio.create_task(use())
    reports = [await running.reconcile(deadline_s=10) for _ in range(3)]
    stop.set()
    await using
    for report in reports:
        assert report.accounts == report.equal + 1, report
        assert only(report.named).comparison == Different(9)
    await running.until_settled()
    used = AccountRecord.unpack(await tampering.read())
    assert used.used > 10 * 1_150_000
    used.credit -= 9
    await tampering.write(used.pack())
    assert genuine != used.pack()
    assert (await running.reconcile()).agreed


async def test_many_accounts_that_do_not_agree_are_counted_and_the_first_named(running: Deployment) -> None:
    await running.until_settled()
    await running.stop("relay")
    accounts = [NewAccount(f"many-{n}", "USD", "basic") for n in range(1_200)]
    assert isinstance(await import_accounts(running.pool, accounts, author="test"), Imported)
    stages: list[tuple[str, int, int]] = []
    report = await compare_books(
        running.pool,
        running.functions,
        running.settings,
        deadline_s=0.0,
        progress=lambda *stage: stages.append(stage),
    )
    assert isinstance(report, Report)
    assert report.missing == 1_200
    assert len(report.named) == NAMED
    assert stages[-1] == ("compare", report.accounts, report.accounts)
    running.start("relay")
    assert (await running.reconcile()).agreed
