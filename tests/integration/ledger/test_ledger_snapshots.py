"""What the balance store reads of the ledger: one account as of an offset, and everything at one moment."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from ledger_support import AUTHOR, Ledger, charge, names

from billing.balance.snapshot import AccountSnapshot, LedgerLagging, LedgerUnavailable
from billing.ledger.booking import adjust, credit
from billing.ledger.database import open_pool, transaction
from billing.ledger.incarnations import Identity, first_incarnation, mint_incarnation, read_identity
from billing.ledger.snapshots import LedgerReader, SettledSession, account_snapshot, ledger_snapshot
from billing.stream.record import Position


async def test_an_account_is_derived_as_of_any_offset(ledger: Ledger) -> None:
    one, two = names(0, 2)
    card = {"recharge_below_micros": -3, "recharge_by_micros": 10_000, "payment_method": "pm_1"}
    await ledger.open(one, two, credit_micros=900, credit_limit_micros=7, **card)
    await adjust(ledger.pool, one, -100, "x", author=AUTHOR)
    owner, rnd, end = await ledger.claim(), random.Random(3), 0
    charges = []
    for _ in range(5):
        ops = [charge(end + i, rnd.choice((one, two)), f"s{end + i}", rnd.choice((0, 5, 9))) for i in range(8)]
        charges += ops
        end = await ledger.settle(owner, end, ops)
    identity = await ledger.pool.fetchrow("select timeline from ledger_meta")
    for below in range(end + 1):
        mine = [op for op in charges if op.account == one and op.offset < below]
        snapshot = await account_snapshot(ledger.pool, one, 0, below, 1_000_010)
        assert isinstance(snapshot, AccountSnapshot)
        assert replace(snapshot, settled=sorted(snapshot.settled)) == AccountSnapshot(
            timeline=identity["timeline"],
            currency="USD",
            credit_micros=800,
            used_micros=sum(op.amount_micros for op in mine),
            credit_limit_micros=7,
            recharge_below_micros=-3,
            excluded_micros=100,
            ledger_seq=2,
            last_charge_offset=max((op.offset for op in mine if op.amount_micros), default=-1),
            status="open",
            settled=sorted(("call", op.session) for op in mine if op.log_time_ms >= 1_000_010),
        )
    assert await account_snapshot(ledger.pool, one, 0, end + 1, 0) == LedgerLagging()
    assert await account_snapshot(ledger.pool, "nobody", 0, 0, 0) == LedgerLagging()
    assert await account_snapshot(ledger.pool, one, 1, 0, 0) == LedgerLagging()


async def test_a_ledger_that_is_away_is_an_answer(ledger: Ledger) -> None:
    reader = LedgerReader(ledger.pool)
    (one,) = names(0, 1)
    await ledger.open(one)
    assert isinstance(await reader.derive(one, 0, 0, 0), AccountSnapshot)
    pool = await open_pool("postgresql://postgres@127.0.0.1:1/none")
    assert isinstance(await LedgerReader(pool).derive(one, 0, 0, 0), LedgerUnavailable)
    await pool.close()


async def test_a_snapshot_is_one_moment_while_usage_and_credits_go_on(ledger: Ledger) -> None:
    accounts = names(0, 4)
    await ledger.open(*accounts, credit_micros=1_000)
    owner, end = await ledger.claim(), 0
    end = await ledger.settle(owner, 0, [charge(i, account, f"s{i}", 10) for i, account in enumerate(accounts)])
    async with ledger_snapshot(ledger.pool) as snapshot:
        assert snapshot.positions[0].position.offset == end
        assert snapshot.positions[0].log_time_ms == 1_000_003
        await ledger.settle(owner, end, [charge(end + i, account, f"t{i}", 10) for i, account in enumerate(accounts)])
        await credit(ledger.pool, accounts[0], 5, "x", author=AUTHOR)
        found = {account: record async for chunk in snapshot.accounts(0) for account, record in chunk}
        settled = [session async for chunk in snapshot.settled_since(0, 1_000_002) for session in chunk]
        assert [chunk async for chunk in snapshot.accounts(1)] == []
        assert snapshot.positions[1].position == Position(0, "")
    assert sorted(found) == sorted(accounts)
    assert {(record.credit_micros, record.used_micros, record.ledger_seq) for record in found.values()} == {
        (1_000, 10, 1)
    }
    assert sorted(settled, key=lambda session: session.session) == [
        SettledSession(accounts[2], "call", "s2", 1_000_002),
        SettledSession(accounts[3], "call", "s3", 1_000_003),
    ]


async def test_incarnations_go_upwards_and_migrate_mints_only_for_a_ledger_without_entries(ledger: Ledger) -> None:
    async def first() -> Identity | None:
        async with transaction(ledger.pool) as connection:
            return await first_incarnation(connection)

    found = set(await asyncio.gather(*(first() for _ in range(4))))
    (identity,) = found
    assert identity is not None
    assert identity.incarnation == 1
    await ledger.open("alice")
    assert await first() == identity
    async with transaction(ledger.pool) as connection:
        assert await mint_incarnation(connection, above=0, reason="rebuild") == 2
        assert await mint_incarnation(connection, above=7, reason="a store from elsewhere") == 8
    assert await read(ledger) == replace(identity, incarnation=8)


async def test_a_ledger_with_entries_but_no_incarnation_needs_a_rebuild(ledger: Ledger) -> None:
    await ledger.open("alice")
    async with transaction(ledger.pool) as connection:
        identity = await first_incarnation(connection)
    assert identity is not None
    assert identity.incarnation is None


async def read(ledger: Ledger) -> Identity | None:
    async with transaction(ledger.pool) as connection:
        return await read_identity(connection)
