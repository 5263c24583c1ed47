"""Signals as the functions write them: transitions, repeats, a full backlog, unknown balances."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from balance_harness import (
    GENERATION_MS,
    PARTITION,
    START_MS,
    TOPICS,
    FixedLedger,
    Store,
    batch,
    charge,
    entries,
    hold,
    opened,
    posted,
)

from billing.balance.balances import Known, Unknown
from billing.balance.conditions import EXHAUSTED, LOW, OWED_RESTORED, OWED_RESUMED, SUSPENDED
from billing.balance.records import Status
from billing.balance.signals import StoredSignal
from billing.balance.snapshot import AccountSnapshot
from billing.balance.store import RedisSink
from billing.stream.sink import Applied, Claimed, Owner, Tended, Unavailable, Uninitialised
from billing.usage.ops import CALL_LEASE_MS
from schemas.ledger import AccountChanged, DebitsAcknowledged

BACKLOG = 3


class Account:
    """One partition driven in order; offsets are counted here."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.owner = Owner(1, "n")
        self.usage_offset, self.entries_offset = 0, 0

    async def take(self, *made: Any) -> list[tuple[str, str]]:
        """Apply entries; what they signalled."""
        batch_ = entries(self.owner, self.entries_offset, list(made))
        assert await self.store.sink.apply(batch_) == Applied(batch_.to_offset)
        self.entries_offset = batch_.to_offset
        return await self.told()

    async def use(self, *ops: Any, log_time_ms: int = START_MS) -> list[tuple[str, str]]:
        """Apply usage, given the operations' offsets here; what it signalled."""
        first = self.usage_offset
        made = [_at(op, first + index) for index, op in enumerate(ops)]
        batch_ = batch(self.owner, first, first + max(1, len(ops)), made, log_time_ms=log_time_ms)
        assert await self.store.sink.apply(batch_) == Applied(batch_.to_offset)
        self.usage_offset = batch_.to_offset
        return await self.told()

    async def told(self) -> list[tuple[str, str]]:
        return sorted((signal.kind, signal.account) for signal in await self.store.signals())

    async def flags(self, account: str = "a1") -> int:
        found: int = (await self.store.state())["accounts"][account].flags
        return found


def _at(op: Any, offset: int) -> Any:
    return msgspec.structs.replace(op, offset=offset)


@pytest.fixture
async def a(services: Any) -> AsyncIterator[Account]:
    """A store without accounts, owned."""
    async with Store.open(services.redis_url) as store:
        await store.start()
        await store.claimed()
        yield Account(store)


@pytest.fixture
async def small(services: Any) -> AsyncIterator[Account]:
    """The same with room for few unpublished signals."""
    async with Store.open(services.redis_url, BACKLOG) as store:
        await store.start()
        await store.claimed()
        yield Account(store)


def changed(seq: int, *, status: Status = "open", below: int | None = None, limit: int = 0) -> AccountChanged:
    return AccountChanged(
        account="a1",
        ledger_seq=seq,
        timeline="t1",
        plan="basic",
        credit_limit_micros=limit,
        recharge_below_micros=below,
        status=status,
    )


async def test_only_a_transition_signals(a: Account) -> None:
    assert await a.take(opened("a1", credit=1_000, below=500)) == []
    assert await a.use(charge(0, "a1", "s1", 500)) == []  # 500 is not below 500
    assert await a.use(charge(0, "a1", "s2", 1)) == [("low", "a1")]
    assert await a.use(charge(0, "a1", "s3", 1)) == []
    assert await a.use(charge(0, "a1", "s4", 498)) == [("exhausted", "a1")]
    assert await a.take(posted("a1", 2, 100)) == []  # no longer exhausted, still low
    assert await a.take(posted("a1", 3, 400)) == [("restored", "a1")]
    assert await a.take(posted("a1", 4, 400)) == []
    assert (await a.store.state())["alerted"] == set()


async def test_s25_usage_beyond_the_hold_is_charged_and_signals_exhausted(a: Account) -> None:
    """The credit limit bounds how far below zero counts as available; the charge itself is never refused."""
    await a.take(opened("a1", credit=1_000), changed(2, limit=500))
    assert await a.use(hold(0, "a1", "s1", 900)) == []
    assert await a.use(hold(0, "a1", "s2", 500)) == []
    assert await a.use(charge(0, "a1", "s1", 1_000)) == [("cutoff", "a1"), ("exhausted", "a1")]
    known = await a.store.reader.read_balance("a1")
    assert isinstance(known, Known)
    assert (known.used_micros, known.available_micros) == (1_000, -500)


async def test_s25_without_an_open_session_there_is_nothing_to_cut_off(a: Account) -> None:
    await a.take(opened("a1", credit=1_000))
    assert await a.use(charge(0, "a1", "s1", 2_000)) == [("exhausted", "a1")]


async def test_s24_s23_an_expired_hold_signals_once_and_may_restore(a: Account) -> None:
    late = START_MS + CALL_LEASE_MS
    await a.take(opened("a1", credit=500))
    told = await a.use(hold(0, "a1", "s1", 300), hold(0, "a1", "s2", 300), log_time_ms=late)
    assert told == [("cutoff", "a1"), ("exhausted", "a1")]
    assert await a.store.sink.tend(a.owner, PARTITION, at_end=True) == Tended(False)
    found = await a.store.signals()
    expired = sorted((signal.session, signal.amount_micros) for signal in found if signal.kind == "expired")
    assert expired == [("c/a1/s1", 300), ("c/a1/s2", 300)]
    assert [signal.kind for signal in found if signal.kind != "expired"] == ["restored"]
    assert await a.store.sink.tend(a.owner, PARTITION, at_end=True) == Tended(False)
    assert await a.told() == []
    assert await a.use(charge(0, "a1", "s1", 400), log_time_ms=late) == []  # a late completion settles all the same
    assert await a.use(charge(0, "a1", "s2", 100), log_time_ms=late) == [("exhausted", "a1")]


async def test_r5_debits_that_are_not_usage_do_not_make_an_account_low(a: Account) -> None:
    await a.take(opened("a1", credit=1_000, below=500))
    assert await a.take(posted("a1", 2, -900)) == []
    assert await a.use(hold(0, "a1", "s1", 90)) == []  # holds are left out too
    acknowledged = DebitsAcknowledged(account="a1", ledger_seq=3, timeline="t1")
    assert await a.take(acknowledged) == [("low", "a1")]


async def test_a_status_entry_signals_suspended_and_resumed(a: Account) -> None:
    await a.take(opened("a1"))
    assert await a.take(changed(2, status="suspended")) == [("suspended", "a1")]
    assert await a.take(changed(3, status="suspended", limit=5)) == []
    assert await a.take(changed(4, status="open")) == [("resumed", "a1")]
    assert await a.take(changed(5, status="closed")) == []


async def test_what_holds_is_told_again_by_a_round_of_repeats(a: Account) -> None:
    await a.take(*(opened(f"b{i}", credit=1, below=5) for i in range(300)), opened("a1", credit=0))
    await a.use(hold(0, "a1", "s1", 1))
    for _ in range(2):
        await a.store.remind()
        told = await a.told()
        assert {pair for pair in told if pair[1] == "a1"} == {("cutoff", "a1"), ("exhausted", "a1")}
        assert {account for kind, account in told if kind == "low"} == {f"b{i}" for i in range(300)}


async def test_a_full_backlog_keeps_flags_and_the_repeats_tell_what_is_still_true(small: Account) -> None:
    a = small
    first = [opened(f"b{i}", credit=1, below=5) for i in range(BACKLOG)]
    assert await a.store.sink.apply(entries(a.owner, 0, first)) == Applied(BACKLOG)
    made = entries(a.owner, BACKLOG, [opened("a1", credit=1_000, below=500), opened("a2", credit=1_000, below=500)])
    assert await a.store.sink.apply(made) == Applied(made.to_offset)
    ops = [charge(0, "a1", "s1", 600), charge(1, "a2", "s2", 600)]
    assert await a.store.sink.apply(batch(a.owner, 0, 2, ops)) == Applied(2), "billing never stops"
    assert len((await a.store.state())["signals"]) == BACKLOG
    made = entries(a.owner, made.to_offset, [posted("a2", 2, 5_000), changed(2, status="suspended", below=500)])
    assert await a.store.sink.apply(made) == Applied(made.to_offset)
    assert (await a.flags("a1"), await a.flags("a2")) == (LOW | SUSPENDED, OWED_RESTORED)
    made = entries(a.owner, made.to_offset, [changed(3, below=500)])
    assert await a.store.sink.apply(made) == Applied(made.to_offset)
    assert await a.flags("a1") == LOW | OWED_RESUMED
    await a.store.remind()
    assert await a.told() == [("low", f"b{i}") for i in range(BACKLOG)]
    told: list[tuple[str, str]] = []
    for _ in range(5):
        await a.store.remind()
        told += await a.told()
    ours = {pair for pair in told if pair[1] in ("a1", "a2")}
    assert ours == {("low", "a1"), ("resumed", "a1"), ("restored", "a2")}
    assert [pair for pair in told if pair[0] in ("restored", "resumed")] in (
        [("resumed", "a1"), ("restored", "a2")],
        [("restored", "a2"), ("resumed", "a1")],
    ), "an end is told once"
    assert (await a.flags("a1"), await a.flags("a2")) == (LOW, 0)


async def test_leases_wait_while_the_backlog_is_full(small: Account) -> None:
    a, late = small, START_MS + CALL_LEASE_MS
    made = entries(a.owner, 0, [opened(f"b{i}", credit=1, below=5) for i in range(BACKLOG)] + [opened("a1")])
    assert await a.store.sink.apply(made) == Applied(made.to_offset)
    made = batch(a.owner, 0, 1, [hold(0, "a1", "s1", 600)], log_time_ms=late)
    assert await a.store.sink.apply(made) == Applied(1)
    assert await a.store.sink.tend(a.owner, PARTITION, at_end=True) == Tended(True)
    await a.told()
    assert await a.store.sink.tend(a.owner, PARTITION, at_end=True) == Tended(False)
    assert await a.told() == [("expired", "a1")]


async def test_r1_nothing_is_signalled_of_an_account_that_is_unknown(a: Account) -> None:
    late = START_MS + CALL_LEASE_MS
    await a.take(opened("a1", credit=1_000, below=500))
    await a.use(hold(0, "a1", "s1", 100), charge(0, "a1", "s0", 600), log_time_ms=late)
    assert await a.take(posted("a1", 5, 9_000)) == []  # a gap
    assert await a.store.reader.read_balance("a1") == Unknown("gap")
    assert await a.use(charge(0, "a1", "s2", 5_000), log_time_ms=late) == []
    assert await a.store.sink.tend(a.owner, PARTITION, at_end=True) == Tended(False)  # its hold expired
    await a.store.remind()
    assert await a.told() == []


async def test_r1_a_charge_and_the_loss_of_the_balance_in_one_batch_signal_nothing(a: Account) -> None:
    await a.take(opened("a1", credit=1_000, below=500))
    assert await a.use(charge(0, "a1", "s1", 900), charge(0, "a1", "s2", 2**53 - 1)) == []
    assert await a.store.reader.read_balance("a1") == Unknown("overflow")


@pytest.mark.parametrize(
    ("credit", "status", "kinds"),
    [
        (100, "open", ["low"]),
        (0, "suspended", ["exhausted", "low", "suspended"]),
        (9_000, "open", ["restored"]),
    ],
)
async def test_a_derived_account_signals_what_is_true_of_it(
    a: Account, credit: int, status: Status, kinds: list[str]
) -> None:
    await a.take(opened("a1", credit=1_000, below=500))
    assert await a.use(charge(0, "a1", "s0", 600)) == [("low", "a1")]
    assert await a.take(posted("a1", 5, 9_000)) == []
    snapshot = AccountSnapshot(
        timeline="t1",
        currency="USD",
        credit_micros=credit,
        used_micros=0,
        credit_limit_micros=0,
        recharge_below_micros=500,
        excluded_micros=0,
        ledger_seq=5,
        last_charge_offset=-1,
        status=status,
        settled=[],
    )
    sink = RedisSink(a.store.functions, TOPICS, ledger=FixedLedger({"a1": snapshot}))
    claimed = await sink.claim(PARTITION, "n2")
    assert isinstance(claimed, Claimed)
    assert await sink.tend(claimed.owner, PARTITION, at_end=False) == Tended(False)
    assert [kind for kind, _ in await a.told()] == kinds
    assert (await a.store.state())["alerted"] == ({"a1"} if credit < 500 else set())


async def test_a_signal_shows_the_account_as_its_batch_left_it(a: Account) -> None:
    await a.take(opened("a1", credit=1_000, below=500), posted("a1", 2, -100))
    later = START_MS + GENERATION_MS // 2
    made = batch(a.owner, 0, 7, [hold(3, "a1", "s1", 20), charge(4, "a1", "s2", 700)], log_time_ms=later)
    assert await a.store.sink.apply(made) == Applied(7)
    assert await a.store.signals() == [StoredSignal("low", "a1", "USD", 300, 180, 500, 0, 7, later)]


async def test_s11_r8_an_error_between_signals_and_balances_leaves_the_store_torn(small: Account) -> None:
    """Every write of a batch that signals, of an expiry that signals and of a round that pays what is owed fails once:
    nothing has changed then, or nobody trusts the store."""
    late, reached = START_MS + CALL_LEASE_MS, dict.fromkeys(("usage", "tend", "remind"), 0)

    async def usage() -> Any:
        ops = [hold(0, "a1", "s1", 600), charge(1, "a1", "s2", 600)]
        return await small.store.sink.apply(batch(small.owner, 0, 2, ops, log_time_ms=late))

    async def tend() -> Any:
        return await small.store.sink.tend(small.owner, PARTITION, at_end=True)

    async def remind() -> Any:
        args = (str(small.store.incarnation), small.owner.epoch, small.owner.nonce, "0", 100)
        keys = small.store.functions.keys.all(PARTITION, str(small.store.incarnation))
        return await small.store.functions.call("remind", keys, *args)

    for failing in reached:
        for writes in range(12):
            await _owing(small)
            for name, step in (("usage", usage), ("tend", tend), ("remind", remind)):
                if name == failing:
                    break
                assert not isinstance(await step(), Unavailable)
                await small.store.signals()
            before = await small.store.state()
            await small.store.fail_after(writes)
            answer = await step()
            await small.store.fail_after(None)
            if not isinstance(answer, Unavailable):
                break
            reached[failing] += 1
            state = await small.store.state()
            if state["torn"]:
                assert await usage() == await small.store.sink.claim(PARTITION, "x") == Uninitialised("torn")
            else:
                assert state == before
    assert min(reached.values()) >= 5, reached


async def _owing(a: Account) -> None:
    """A fresh store whose a2 is owed "restored", because its backlog was full when that came true."""
    await a.store.wipe()
    await a.store.start()
    await a.store.claimed()
    first = [opened(f"b{i}", credit=1, below=5) for i in range(BACKLOG)]
    made = entries(a.owner, 0, [*first, opened("a1", credit=1_000, below=500), opened("a2", credit=0)])
    assert await a.store.sink.apply(made) == Applied(made.to_offset)
    credited = entries(a.owner, made.to_offset, [posted("a2", 2, 5_000)])
    assert await a.store.sink.apply(credited) == Applied(credited.to_offset)
    assert await a.flags("a2") == OWED_RESTORED
    await a.store.signals()


def test_flags_are_told_apart() -> None:
    assert len({LOW, EXHAUSTED, SUSPENDED, OWED_RESTORED, OWED_RESUMED}) == 5
    assert sum((LOW, EXHAUSTED, SUSPENDED, OWED_RESTORED, OWED_RESUMED)) == 31
