"""The reconciler process on real servers: what drifts is frozen, recorded, put right, and let go as it should be."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from command_runner import billing
from reconcile_harness import CREDIT, Deployment, deployed
from tampering import Tampering
from usage_builders import ITEM, PROGRESSED, STARTED, item, progressed, started

from billing.balance import derive
from billing.balance.records import AccountRecord
from billing.cli import shown
from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.ledger.database import fetch, fetchrow, lease
from billing.ledger.findings import Finding, findings
from billing.ledger.terms import Invalid
from billing.ledger.verify import verify
from billing.reconcile import judge
from billing.reconcile.resolving import Decision, NotResolved, Resolved, resolve_finding

pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEM_PRICE = 1_150_000
CORRECTIONS = "select * from journal where account_id = $1 and kind = 'view_corrected'"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(services: Services) -> AsyncIterator[Deployment]:
    """One deployment with a reconciler for all of these tests; each has its own accounts."""
    async with isolated(services, partitions=2) as settings, deployed(settings) as deployment:
        deployment.start()
        deployment.start("reconciler")
        yield deployment


async def found(running: Deployment, account: str, *, repeated: int = 0) -> Finding:
    """The newest finding of the account, once there are more than `repeated`."""

    async def there() -> bool:
        return len([f async for f in findings(running.pool, account=account)]) > repeated

    await running.until(there)
    return [f async for f in findings(running.pool, account=account)][-1]


async def frozen(running: Deployment, account: str) -> bool:
    row = await fetchrow(running.pool, "select frozen from recharge_freezes where account_id = $1", account)
    return row is not None and row["frozen"]


async def resolve(
    running: Deployment, finding: int, way: Any, amount_micros: int = 0, wait_s: float = 10.0
) -> Resolved | NotResolved:
    decision = Decision(way, "ada", "looked into it", amount_micros)
    settings = running.settings
    return await resolve_finding(running.pool, running.functions, settings, finding, decision, wait_s=wait_s)


async def until_agreed(running: Deployment, account: str, balance_micros: int) -> None:
    async def agreed() -> bool:
        answer = await running.reader.read_balance(account)
        credit, used = getattr(answer, "credit_micros", None), getattr(answer, "used_micros", 0)
        return credit is not None and credit - used == balance_micros

    await running.until(agreed)
    assert (await running.reconcile()).agreed


async def drift(running: Deployment, account: str, used_micros: int) -> None:
    """Redis says that so much more was used."""
    tampering = Tampering(running, await running.balance(account))
    record = AccountRecord.unpack(await tampering.read())
    record.used += used_micros
    await tampering.write(record.pack())


async def tamper_with_ledger(running: Deployment, account: str, credit_micros: int) -> None:
    """Change the account's row as only a superuser, or a broken disk, can."""
    async with lease(running.pool) as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(
            "update balances set credit_micros = credit_micros + $2 where account_id = $1", account, credit_micros
        )


async def test_s42_a_wrong_view_is_frozen_recorded_and_derived_anew(running: Deployment) -> None:
    account = await running.open()
    await running.publish(account, ITEM, item(item_id="i-1"))
    await running.until_settled()
    await drift(running, account, 7)
    finding = await found(running, account)
    assert (finding.kind, finding.detail["difference_micros"]) == ("books_differ", -7)
    assert (finding.detail["wrong"], finding.detail["cause"]) == ("view", None)
    await until_agreed(running, account, CREDIT - ITEM_PRICE)
    entry = await fetchrow(running.pool, CORRECTIONS, account)
    assert entry is not None
    assert (entry["author"], entry["ledger_seq"]) == ("billing/reconciler", 2)
    assert (await running.balance(account)).ledger_seq == 2
    # nobody knows why: it stays frozen until a person says so, and is recorded once
    assert await frozen(running, account)
    assert len([f async for f in findings(running.pool, account=account)]) == 1
    assert await resolve(running, finding.id, "look") == Resolved(finding.id, "agreed", None, 0, "USD")
    assert not await frozen(running, account)
    assert isinstance(await resolve(running, finding.id, "look"), NotResolved)
    assert all(check.passed for check in await verify(running.pool))


async def test_s42_a_ledger_row_changed_by_hand_waits_for_a_person(running: Deployment) -> None:
    account = await running.open()
    await running.until_settled()
    await tamper_with_ledger(running, account, 5)
    finding = await found(running, account)
    assert (finding.detail["wrong"], finding.detail["difference_micros"]) == ("ledger", -5)
    assert await frozen(running, account)
    assert (await running.balance(account)).credit_micros == CREDIT  # the view is left alone
    for way in ("repair_view", "correct_ledger"):
        assert "--recompute-ledger" in getattr(await resolve(running, finding.id, way, -5), "reason", "")
    answer = await resolve(running, finding.id, "recompute_ledger")
    assert isinstance(answer, Resolved), answer
    assert not await frozen(running, account)
    await until_agreed(running, account, CREDIT)
    assert all(check.passed for check in await verify(running.pool))


async def test_s42_a_wrong_ledger_is_corrected_by_an_entry_and_the_view_follows(running: Deployment) -> None:
    """The view was right at CREDIT + 9, say; the reconciler made it follow the ledger; a person knows better."""
    account = await running.open()
    await running.until_settled()
    await drift(running, account, -9)
    finding = await found(running, account)
    await until_agreed(running, account, CREDIT)
    refused = await resolve(running, finding.id, "correct_ledger", 2**53 - 1)
    assert isinstance(getattr(refused, "refusal", None), Invalid)
    answer = await resolve(running, finding.id, "correct_ledger", 9)
    assert answer == Resolved(finding.id, "agreed", 4, 9, "USD")
    assert await resolve(running, finding.id, "correct_ledger", 9) != answer
    await until_agreed(running, account, CREDIT + 9)
    rows = await fetch(
        running.pool, "select kind, origin, author from journal where account_id = $1 order by ledger_seq", account
    )
    assert [(row["kind"], row["origin"]) for row in rows[1:]] == [
        ("view_corrected", None),
        ("entry", "adjustment"),
        ("view_corrected", None),
    ]
    assert [row["author"] for row in rows[2:]] == ["ada", "ada"]


@pytest.mark.slow
async def test_s42_a_replay_of_a_correction_changes_nothing(running: Deployment) -> None:
    """After a rebuild the view is right by itself; entries that come again are not above its ledger_seq."""
    account = await running.open()
    await running.until_settled()
    await drift(running, account, 11)
    finding = await found(running, account)
    await until_agreed(running, account, CREDIT)
    await running.rebuild()
    await running.until_settled()
    await until_agreed(running, account, CREDIT)
    assert isinstance(await resolve(running, finding.id, "repair_view"), Resolved)
    await until_agreed(running, account, CREDIT)


async def test_s46_an_account_that_the_store_lacks_is_derived(
    running: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place in the store is gone, the opening entry long applied: nothing else would bring it back."""
    monkeypatch.setattr(judge, "LOST_S", 1.0)
    account = await running.open()
    await running.publish(account, ITEM, item(item_id="i-1"))
    await running.until_settled()
    await Tampering(running, await running.balance(account)).remove()
    finding = await found(running, account)
    assert (finding.kind, finding.detail["seen"]) == ("entries_lost", "missing in the store")
    await until_agreed(running, account, CREDIT - ITEM_PRICE)
    await ended(running, account)
    assert not await frozen(running, account)


async def ended(running: Deployment, account: str) -> None:
    async def resolved() -> bool:
        return (await found(running, account)).resolution is not None

    await running.until(resolved)


async def test_r1_a_record_made_unreadable_by_hand_is_named_and_derived_anew(running: Deployment) -> None:
    """It stops its partition, until the reconciler has put an unknown balance in its place; what was held stays."""
    account = await running.open()
    await running.publish(account, STARTED, started(call_id="open"))
    await running.until_settled()
    held = (await running.balance(account)).held_micros
    assert held > 0
    tampering = Tampering(running, await running.balance(account))
    whole = await tampering.read()
    for repeated, junk in enumerate((b"junk", b"\xff" * len(whole))):
        await tampering.write(junk)
        await running.publish(account, ITEM, item(item_id=f"i-{repeated}"))
        finding = await found(running, account, repeated=repeated)
        assert finding.kind == "record_unreadable"
        await until_agreed(running, account, CREDIT - (repeated + 1) * ITEM_PRICE)
        await ended(running, account)
        assert (await running.balance(account)).held_micros == held
        assert [hold.session for hold in await running.holds(account)] == ["open"]
    assert not await frozen(running, account)


async def test_r1_a_hold_made_unreadable_by_hand_is_named_and_forgotten(running: Deployment) -> None:
    """Until the next event of its session, which holds again. Other holds stay."""
    account = await running.open()
    for call_id in ("open", "struck"):
        await running.publish(account, STARTED, started(call_id=call_id))
    await running.until_settled()
    await Tampering(running, await running.balance(account)).write_hold(f"c/{account}/struck", b"junk")
    finding = await found(running, account)
    assert (finding.kind, finding.detail["seen"][:20]) == ("record_unreadable", "unknown (unreadable:")
    await ended(running, account)
    assert await held_by(running, account) == ["open"]
    await running.publish(account, PROGRESSED, progressed(call_id="struck", elapsed_seconds=1))
    await running.until_settled()
    assert await held_by(running, account) == ["open", "struck"]
    assert (await running.reconcile()).agreed
    assert not await frozen(running, account)


async def held_by(running: Deployment, account: str) -> list[str]:
    """Sessions with holds, which are all that is held."""
    holds = await running.holds(account)
    assert (await running.balance(account)).held_micros == sum(hold.amount_micros for hold in holds)
    return [hold.session for hold in holds]


@pytest.mark.slow
async def test_r10_an_account_beyond_the_bounds_is_a_finding_that_says_the_way_out(
    running: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "OVERFLOW_S", 0.5)
    monkeypatch.setattr(derive, "BACKOFF_S", 0.5)
    account = await running.open()
    for number in range(4):
        await running.publish(account, ITEM, item(item_id=f"i-{number}", quantity=2**31 - 1))
    await running.until_ledger_settled()
    finding = await found(running, account)
    assert (finding.kind, finding.currency) == ("balance_overflow", "USD")
    began = time.monotonic()
    report = await running.reconcile()
    assert (report.unknown, time.monotonic() - began < 5) == (1, True)
    code, out, _ = await billing(running.settings, "findings", "show", str(finding.id))
    assert code == 0
    assert f"billing account adjust {account} AMOUNT" in " ".join(out.split())
    assert "balance -9878424756.20 USD" in out
    await running.debit(account, -5 * 10**15)
    await until_agreed(running, account, CREDIT - 4 * (2**31 - 1) * ITEM_PRICE + 5 * 10**15)
    await ended(running, account)
    await running.publish(account, ITEM, item(item_id="after"))
    await running.until_settled()
    assert (await running.reconcile()).agreed


async def test_s42_findings_are_listed_shown_and_resolved_by_command(running: Deployment) -> None:
    account = await running.open()
    await running.until_settled()
    await tamper_with_ledger(running, account, 3)
    finding = await found(running, account)
    code, out, _ = await billing(running.settings, "findings", "list", "--account", account, "--json")
    (row,) = json.loads(out)
    assert (code, row["id"], row["kind"], row["resolution"]) == (0, finding.id, "books_differ", None)
    who = ("--by", "ada", "--reason", "disk replaced")
    number = str(finding.id)
    code, out, err = await billing(running.settings, "findings", "resolve", number, *who, "--wait", "0")
    assert (code, out) == (1, "")
    assert err == f"billing: the books of {account} do not agree: store differs from the ledger by -0.000003 USD\n"
    code, _, err = await billing(running.settings, "findings", "resolve", number, *who, "--correct-ledger", "0")
    assert (code, err) == (2, "billing: --correct-ledger: AMOUNT must not be 0\n")
    await tamper_with_ledger(running, account, -3)  # somebody has put it right meanwhile
    code, out, _ = await billing(running.settings, "findings", "resolve", number, *who, "--repair-view")
    assert code == 0
    assert out.splitlines()[-2:] == ["ledger_seq  -", "booked      nothing: the books agree"]
    code, out, _ = await billing(running.settings, "findings", "show", number, "--json")
    resolution = json.loads(out)["resolution"]
    assert (resolution["by"], resolution["why"], resolution["action"]) == ("ada", "disk replaced", "agreed")


async def test_s46_account_open_returns_once_the_catalogue_has_it_or_says_that_it_has_not(
    running: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("account", "open", "by-command", "--currency", "USD", "--plan", "basic", "--json")
    code, out, err = await billing(running.settings, *words)
    assert (code, json.loads(out)["listed"], err) == (0, True, "")
    assert not await fetch(running.pool, "select from catalogue_outbox where account_id = 'by-command'")
    await running.stop("relay")
    account = await running.open_unseen()
    monkeypatch.setattr(shown, "LISTED_SECONDS", 0.1)
    assert not await shown.until_listed(running.pool, [account])
    assert "is the relay running?" in capsys.readouterr().err
    running.start("relay")
    monkeypatch.setattr(shown, "LISTED_SECONDS", 10.0)
    assert await shown.until_listed(running.pool, [account])


async def test_r11_reconcile_says_within_seconds_that_redis_is_away(running: Deployment) -> None:
    began = time.monotonic()
    code, out, err = await billing(running.settings, "reconcile", "--json", BILLING_REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, out) == (2, "")
    assert err.startswith("billing: the balance store does not answer: ")
    assert time.monotonic() - began < 15  # three seconds, and starting Python on a busy machine


async def test_s20_a_duplicate_beyond_the_dedupe_window_is_put_right_and_let_go(running: Deployment) -> None:
    """The window is made to forget the session, as hours of log time do; PostgreSQL refuses the duplicate."""
    account = await running.open()
    await running.publish(account, ITEM, item(item_id="again"))
    await running.until_settled()
    known = await running.balance(account)
    keys = running.functions.keys.data(running.home(account), known.incarnation)
    session = f"i/{account}/again"
    client = running.functions.client
    census = [int(part) for part in (await client.hget(keys[0], "census")).split()]
    for slot, key in enumerate(keys[6:9]):
        census[5 + slot] -= await client.srem(key, session)
    await client.hset(keys[0], "census", " ".join(map(str, census)))
    await running.publish(account, ITEM, item(item_id="again"))
    finding = await found(running, account)
    assert finding.detail["difference_micros"] == -ITEM_PRICE
    assert finding.detail["cause"]["session"] == "item/again"
    await until_agreed(running, account, CREDIT - ITEM_PRICE)

    async def let_go() -> bool:
        return not await frozen(running, account)

    await running.until(let_go)
    finding = await found(running, account)
    assert finding.resolution is not None
    assert (finding.resolution.author, finding.resolution.action) == ("billing/reconciler", "agreed")


@pytest.mark.slow
async def test_s42_an_operator_lets_a_difference_stand(running: Deployment) -> None:
    account = await running.open()
    await running.until_settled()
    await tamper_with_ledger(running, account, 3)
    finding = await found(running, account)
    assert isinstance(await resolve(running, finding.id, "look", wait_s=0), NotResolved)
    assert await resolve(running, finding.id, "accept") == Resolved(finding.id, "accepted", None, 0, "USD")
    assert not await frozen(running, account)
    await drift(running, account, 1)  # another difference than the one that was let stand
    later = await found(running, account, repeated=1)
    assert later.detail["difference_micros"] == -4
    assert isinstance(await resolve(running, later.id, "recompute_ledger"), Resolved)
