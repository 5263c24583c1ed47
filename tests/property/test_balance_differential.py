"""The function library against the pure model: generated sequences, the same answer and the same state and the
same signals after each step: 150 sequences beside the other tests, 2,000 among the slow ones, more by
BILLING_DIFFERENTIAL_EXAMPLES."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from balance_harness import (
    GENERATION_MS,
    PARTITION,
    START_MS,
    TOPICS,
    FixedLedger,
    FixedLog,
    Store,
    batch,
    charge,
    entries,
    hold,
    model_state,
    opened,
    posted,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from billing.balance.model import PartitionModel
from billing.balance.records import HoldRecord
from billing.balance.signals import KINDS as KINDS_OF_SIGNAL
from billing.balance.snapshot import AccountSnapshot
from billing.balance.store import EXPIRIES_PER_CALL, RedisSink
from billing.stream.sink import Applied, Fenced, Owner, Tended, Unavailable, Uninitialised
from billing.usage.ops import Stray, session_key
from schemas.ledger import AccountChanged, DebitsAcknowledged, ViewCorrected

FEW = 150
MANY = max(2_000, int(os.environ.get("BILLING_DIFFERENTIAL_EXAMPLES", "0")))
ACCOUNTS = ("a1", "a2", "a3", "a4", "a5")
OPENED: dict[str, dict[str, Any]] = {"a1": {"credit": 1_300_000, "below": 700_000}, "a2": {"credit": 650_000}}
BACKLOG = 5
AMOUNTS = (0, 1, 7_500, 600_000) * 10 + (2**52, 2**53 - 1)
KINDS = ("call", "call", "message")

usage_op = st.tuples(
    st.sampled_from(("hold", "charge") * 4 + ("stray",)),
    st.sampled_from(tuple(OPENED) * 3 + ACCOUNTS),
    st.sampled_from(KINDS),
    st.sampled_from(("s1", "s2", "s3")),
    st.sampled_from(AMOUNTS),
    st.sampled_from((0, 30, 60)),  # elapsed
    st.sampled_from(("USD",) * 30 + ("EUR",)),
)
usage_step = st.tuples(
    st.just("usage"),
    st.lists(usage_op, max_size=8),
    st.booleans(),  # caught up
    st.integers(0, 2),  # a hole after the batch
    st.sampled_from((0, 60_000, 200_000, -60_000, *(n * GENERATION_MS for n in (1, 2, 3)))),  # log time goes on
)
entry_op = st.tuples(
    st.sampled_from(("opened", *("posted",) * 4, *("changed",) * 3, "acknowledged", "corrected")),
    st.sampled_from(tuple(OPENED) * 2 + ACCOUNTS),
    st.sampled_from((0,) * 12 + (-1, 1)),  # of ledger_seq: next, repeated, a gap
    st.sampled_from((20_000_000, 600_000, -900_000, -500, 2**53 - 1, 1)),
    st.sampled_from((0, 3, 1_000)),  # opened at
    st.sampled_from(("USD",) * 30 + ("EUR",)),
)
entries_step = st.tuples(
    st.just("entries"), st.lists(entry_op, min_size=1, max_size=5), st.sampled_from(("t1",) * 60 + ("t0",))
)
derive_step = st.tuples(
    st.just("tend"),
    st.booleans(),  # at the end
    st.sampled_from((None, "t1", "t1", "t1", "t0")),  # None: the ledger lags
    st.integers(-1, 2),  # its ledger_seq, relative to what was seen
    st.lists(st.sampled_from(("s1", "s2", "s3")), max_size=2),
    st.dictionaries(  # holds that were passed, by session
        st.sampled_from(("s1", "s2", "s3")),
        st.tuples(st.sampled_from(AMOUNTS), st.sampled_from((0, 30, 60)), st.sampled_from((-60_000, 0, 180_000))),
        max_size=3,
    ),
)
twist = st.sampled_from(
    ("", "", "", "again", "wrong offset", "other owner", "claim", "fault", "rebuild", "publish", "publish", "remind")
)
steps = st.lists(
    st.tuples(st.one_of(usage_step, usage_step, usage_step, entries_step, derive_step), twist, st.integers(0, 9)),
    min_size=8,
    max_size=24,
)


class Sequence:
    """One generated sequence on the store and on the model."""

    def __init__(self, store: Store, model: PartitionModel, owner: Owner) -> None:
        self.store, self.model, self.owner = store, model, owner
        self.seqs: dict[str, int] = {}
        self.log_time_ms = START_MS
        self.counted = 0
        self.seen: Counter[str] = Counter()

    async def step(self, step: tuple[Any, ...], twist: str, number: int) -> None:
        if twist == "claim":
            await self.claim()
        elif twist == "rebuild":
            await self.rebuild()
        elif twist == "publish":
            await self.store.signals()
            self.model.signals.clear()
        elif twist == "remind":
            await self.store.remind()
            self.model.remind(self.owner)
        if step[0] == "tend":
            await self.tend(*step[1:])
        else:
            made = self.usage(*step[1:]) if step[0] == "usage" else self.entries(*step[1:])
            await self.apply(made, twist, number)
        await self.compare()

    async def apply(self, made: Any, twist: str, number: int) -> None:
        if twist == "wrong offset":
            made = replace(made, from_offset=made.from_offset + 1, to_offset=made.to_offset + 1, ops=[])
        elif twist == "other owner":
            made = replace(made, owner=Owner(self.owner.epoch, "zombie"))
        elif twist == "fault" and await self.fault(made, number):
            made = replace(made, owner=self.owner)  # the same batch again, after the rebuild
        assert await self.store.sink.apply(made) == self.model.apply(made)
        if twist == "again":
            await self.compare()
            assert await self.store.sink.apply(made) == self.model.apply(made)
        if self.model.halted:
            await self.rebuild()

    async def fault(self, made: Any, number: int) -> bool:
        """Let one write fail. True when it came to that: then there is nothing, or nobody trusts the store."""
        await self.store.fail_after(number)
        before = await self.store.state()
        answer = await self.store.sink.apply(made)
        await self.store.fail_after(None)
        if not isinstance(answer, Unavailable):
            assert answer == self.model.apply(made)
            return False
        state = await self.store.state()
        if not state["torn"]:
            assert state == before
            return True
        assert await self.store.sink.apply(made) == Uninitialised("torn")
        assert await self.store.sink.claim(PARTITION, "other") == Uninitialised("torn")
        await self.rebuild()
        return True

    def usage(self, ops: list[Any], caught_up: bool, hole: int, passed_ms: int) -> Any:
        first = self.model.positions[TOPICS.usage].offset
        self.log_time_ms += passed_ms
        made: list[Any] = []
        for offset, (what, account, kind, session, amount, elapsed, currency) in enumerate(ops, first):
            common = {"kind": kind, "log_time_ms": self.log_time_ms}
            if what == "hold":
                made.append(hold(offset, account, session, amount, elapsed=elapsed, **common))
            elif what == "charge":
                made.append(charge(offset, account, session, amount, currency=currency, **common))
            else:
                made.append(Stray(None, account, offset))  # type: ignore[arg-type]  # the store needs no record
        if len({op.currency for op in made if hasattr(op, "currency")}) > 1:
            made = [op for op in made if getattr(op, "currency", "USD") == "USD"]
        to = first + len(ops) + hole + 1
        return batch(self.owner, first, to, made, caught_up=caught_up, log_time_ms=self.log_time_ms)

    def entries(self, ops: list[Any], timeline: str) -> Any:
        made: list[Any] = []
        for what, account, skew, amount, at, currency in ops:
            seq = max(1, self.seqs.get(account, 0) + 1 + skew)
            if what == "opened" or seq == 1:
                made.append(opened(account, credit=amount, at=at, timeline=timeline))
                seq = 1
            elif what == "posted":
                made.append(posted(account, seq, amount, currency))
            elif what == "changed":
                made.append(
                    AccountChanged(
                        account=account,
                        ledger_seq=seq,
                        timeline="t1",
                        plan="basic",
                        credit_limit_micros=max(amount, 0),
                        recharge_below_micros=amount if at else None,
                        status=("open", "closed", "suspended")[(at + amount) % 3],
                    )
                )
            elif what == "corrected":
                why = {"finding": "1", "delta_micros": amount, "author": "ada", "reason": "drift"}
                made.append(ViewCorrected(account=account, ledger_seq=seq, timeline="t1", **why))
            else:
                made.append(DebitsAcknowledged(account=account, ledger_seq=seq, timeline="t1"))
            self.seqs[account] = max(seq, self.seqs.get(account, 0))
        return entries(self.owner, self.model.positions[TOPICS.entries].offset, made)

    async def tend(
        self,
        at_end: bool,
        timeline: str | None,
        newer: int,
        sessions: list[str],
        held: dict[str, tuple[int, int, int]],
    ) -> None:
        snapshots = {
            account: AccountSnapshot(
                timeline=timeline,
                currency="USD",
                credit_micros=30_000_000,
                used_micros=5_000,
                credit_limit_micros=0,
                recharge_below_micros=None if newer else 28_000_000,
                excluded_micros=0 if newer else 3_000_000,
                ledger_seq=max(1, unknown.seen + newer),
                last_charge_offset=unknown.offset - 1,
                status="open" if newer else "suspended",
                settled=[("call", session) for session in sessions],
            )
            for account, unknown in self.model.unknown.items()
            if timeline is not None
        }
        offsets = {account: unknown.offset for account, unknown in self.model.unknown.items()}
        passed = {
            account: {
                session_key("call", account, session): HoldRecord(amount, elapsed, max(0, self.log_time_ms + lease_ms))
                for session, (amount, elapsed, lease_ms) in held.items()
            }
            for account in snapshots
        }
        ledger = FixedLedger(snapshots)
        sink = RedisSink(self.store.functions, TOPICS, ledger=ledger, passed=FixedLog(passed))
        sink._incarnations[PARTITION] = str(self.store.incarnation)  # as the claim of self.store.sink left it
        answer = await sink.tend(self.owner, PARTITION, at_end=at_end)
        if at_end:
            self.model.expire(self.owner, EXPIRIES_PER_CALL)
        assert answer == Tended(bool(self.model.holds)) or snapshots, answer
        for account, *_ in ledger.asked:  # in the store's order: the backlog may become full in between
            snapshot = snapshots.get(account)
            if snapshot is None:
                continue
            unknown = self.model.unknown[account]
            came_back = passed[account] if unknown.first < unknown.offset else {}
            outcome = self.model.derive(self.owner, account, offsets[account], snapshot, came_back)
            if outcome == "derived":
                self.seqs[account] = max(snapshot.ledger_seq, self.seqs.get(account, 0))

    async def claim(self) -> None:
        stale = batch(self.owner, *self.next_offsets(), [])
        answer = await self.store.sink.claim(PARTITION, f"n{self.model.epoch}")
        assert answer == self.model.claim(f"n{self.model.epoch}")
        self.owner = Owner(self.model.epoch, self.model.nonce)
        assert await self.store.sink.apply(stale) == self.model.apply(stale) == Fenced()

    async def rebuild(self) -> None:
        self.model = await self.store.rebuild(self.model)
        await self.compare()
        await self.claim()

    def next_offsets(self) -> tuple[int, int]:
        offset = self.model.positions[TOPICS.usage].offset
        return offset, offset + 1

    async def compare(self) -> None:
        assert await self.store.state() == model_state(self.model)
        fresh = self.model.signals[min(self.counted, len(self.model.signals)) :]
        self.seen.update(signal.kind for signal in fresh)
        self.counted = len(self.model.signals)


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_r7_r8_s11_function_and_model_agree(services: Any, examples: int) -> None:
    """Duplicates, reordering, retries, zombies, faults between writes, generations, expiry, derivation, rebuilds, and
    the signals of every step."""
    applied: Counter[str] = Counter()

    async def run(store: Store, sequence: list[Any]) -> None:
        await store.wipe()
        model = await store.start()
        owner = await store.claimed()
        model.claim("n")
        run = Sequence(store, model, owner)
        start = entries(owner, 0, [opened(account, **terms) for account, terms in OPENED.items()])
        assert await store.sink.apply(start) == model.apply(start) == Applied(2)
        run.seqs = dict.fromkeys(OPENED, 1)
        for step, twist, number in sequence:
            await run.step(step, twist, number)
            applied["steps"] += 1
            applied["full"] += len(run.model.signals) >= BACKLOG
        applied.update(run.seen)
        applied["sequences"] += 1

    with asyncio.Runner() as runner:
        context = Store.open(services.redis_url, BACKLOG)
        store = runner.run(context.__aenter__())

        @settings(
            max_examples=examples,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes; switch it on by hand
            suppress_health_check=[HealthCheck.too_slow],
            print_blob=True,
        )
        @given(steps)
        def check(sequence: list[Any]) -> None:
            runner.run(run(store, sequence))

        try:
            check()
        finally:
            runner.run(context.__aexit__(None, None, None))
    assert applied["sequences"] >= examples
    assert applied["steps"] >= examples * 8
    assert examples < MANY or {*KINDS_OF_SIGNAL, "full"} <= applied.keys(), applied
