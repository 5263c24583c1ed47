"""The function library on a real server, scenario by scenario."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from balance_harness import (
    GENERATION_MS,
    PARTITION,
    START_MS,
    STRAYS,
    TOPICS,
    FixedLedger,
    FixedLog,
    Store,
    batch,
    charge,
    entries,
    hold,
    opened,
    posted,
)

from billing.balance.balances import Known, NoSuchAccount, Unknown
from billing.balance.library import FUNCTION_VERSION
from billing.balance.passed import Span
from billing.balance.records import HoldRecord, pack
from billing.balance.snapshot import AccountSnapshot
from billing.balance.store import RedisSink
from billing.stream.record import Position
from billing.stream.sink import (
    Applied,
    Behind,
    CatchUp,
    Claimed,
    Fenced,
    Halted,
    Owner,
    Refused,
    Tended,
    Unavailable,
    Uninitialised,
)
from billing.usage.ops import CALL_LEASE_MS, Stray
from schemas.ledger import DebitsAcknowledged


@pytest.fixture
async def store(services: Any) -> AsyncIterator[Store]:
    """A store with account a1 opened with 20 units, owned by "n"."""
    async with Store.open(services.redis_url) as store:
        await store.start()
        owner = await store.claimed()
        assert await store.sink.apply(entries(owner, 0, [opened("a1")])) == Applied(1)
        yield store


OWNER = Owner(1, "n")


async def balance(store: Store, account: str = "a1") -> Known:
    answer = await store.reader.read_balance(account)
    assert isinstance(answer, Known), answer
    return answer


async def test_s01_a_retried_batch_is_applied_once(store: Store) -> None:
    made = batch(OWNER, 0, 1, [charge(0, "a1", "s1", 500)])
    assert await store.sink.apply(made) == Applied(1)
    assert await store.sink.apply(made) == Behind(Position(1, made.fingerprint))
    assert (await balance(store)).used_micros == 500


async def test_s02_s03_an_older_owner_changes_nothing(store: Store) -> None:
    assert await store.claimed("younger") == Owner(2, "younger")
    before = await store.state()
    made = batch(OWNER, 0, 1, [charge(0, "a1", "s1", 500)])
    assert await store.sink.apply(made) == Fenced()
    assert await store.sink.tend(OWNER, PARTITION, at_end=True) == Fenced()
    await store.sink.halt(OWNER, PARTITION, "too late")
    assert await store.state() == before


async def test_s04_a_new_owner_goes_on_from_the_stored_position(store: Store) -> None:
    made = batch(OWNER, 0, 7, [charge(3, "a1", "s1", 500)], fingerprint="5:00000000000000aa")
    assert await store.sink.apply(made) == Applied(7)
    claimed = await RedisSink(store.functions, TOPICS).claim(PARTITION, "next")
    assert isinstance(claimed, Claimed)
    assert claimed.positions[TOPICS.usage] == Position(7, "5:00000000000000aa")
    assert claimed.positions[TOPICS.entries].offset == 1


async def test_s11_r8_an_error_after_any_write_leaves_no_half_batch(store: Store) -> None:
    ops = [
        hold(0, "a1", "s1", 600),
        charge(1, "a1", "s1", 500),
        hold(2, "a1", "s2", 600),
        charge(3, "nobody", "s3", 1),
        charge(4, "a1", "s4", 2**53 - 1),  # the used sum overflows: the account becomes unknown
    ]
    offset, reached = 0, set()
    for writes in range(20):
        made = batch(OWNER, offset, offset + 5, ops, caught_up=True)
        before = await store.state()
        await store.fail_after(writes)
        answer = await store.sink.apply(made)
        reached.add(type(answer))
        if isinstance(answer, Applied):
            break
        assert isinstance(answer, Unavailable)
        if writes == 0:
            assert await store.state() == before
            continue
        assert await store.sink.apply(made) == Uninitialised("torn")
        assert await store.sink.claim(PARTITION, "next") == Uninitialised("torn")
        assert await store.reader.read_balance("a1") == Unknown("torn")
        assert await store.reader.read_balance("nobody") == Unknown("torn")
        await store.wipe()
        await store.start()
        await store.claimed()
        assert await store.sink.apply(entries(OWNER, 0, [opened("a1")])) == Applied(1)
    assert reached == {Applied, Unavailable}
    assert writes >= 7, "the batch was meant to need many writes"


async def test_s13_r10_numbers_outside_the_contract_change_nothing(store: Store) -> None:
    before = await store.state()
    for wrong in (-1, 2**53, 2**63, 1.5, 60.0, math.nan, math.inf):
        for op in (
            charge(0, "a1", "s1", wrong),  # type: ignore[arg-type]
            hold(0, "a1", "s1", wrong),  # type: ignore[arg-type]
            hold(0, "a1", "s1", 1, elapsed=wrong),
        ):
            assert isinstance(await store.sink.apply(batch(OWNER, 0, 1, [op])), Refused)
    for wrong in (-(2**53), 2**53, 0.5):
        made = entries(OWNER, 1, [posted("a1", 2, wrong)])  # type: ignore[arg-type]
        assert isinstance(await store.sink.apply(made), Refused)
    assert await store.state() == before


NAMES = pack((["a1"], ["USD"], ["c/a1/s1"]))
SOUND = (2, 0, 1, 1, 5, 0, 0)  # a charge: code, offset, account, session, amount, elapsed, lease end
MALFORMED = [b"refused", b"malformed batch: operations"]


@pytest.mark.parametrize("wrong", [-1, 2**53, 1.5, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("member", range(len(SOUND)))
async def test_s13_the_function_itself_refuses_operations(store: Store, wrong: float, member: int) -> None:
    before = await store.state()
    numbers = (*SOUND[:member], wrong, *SOUND[member + 1 :])
    assert await _raw_usage(store, NAMES, struct.pack("<7d", *numbers)) == MALFORMED
    assert await store.state() == before


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (NAMES, struct.pack("<7d", *SOUND)[:-1]),
        (NAMES, struct.pack("<8d", *SOUND, 0)),
        (NAMES, struct.pack("<14d", *SOUND, *SOUND)),  # one offset twice
        (pack((["a1"], [], ["c/a1/s1"])), struct.pack("<7d", *SOUND)),
        (pack((["a1"], ["USD"], [])), struct.pack("<7d", *SOUND)),
    ],
)
async def test_s13_the_function_itself_refuses_batches(store: Store, names: bytes, numbers: bytes) -> None:
    before = await store.state()
    assert await _raw_usage(store, names, numbers) == MALFORMED
    assert await store.state() == before


@pytest.mark.parametrize("wrong", [0.5, 2**53, math.nan, math.inf, -math.inf, "7", None])
async def test_s13_the_function_itself_refuses_entries(store: Store, wrong: object) -> None:
    before = await store.state()
    blob = pack((["a1"], ["t1"], [[3, 1, 2, wrong, "USD"]]))
    answer = await _raw(store, "entries", 1, 2, "1:x", START_MS, 0, blob)
    assert answer == [b"refused", b"malformed batch: entries"]
    assert await store.state() == before


async def _raw_usage(store: Store, names: bytes, numbers: bytes) -> Any:
    return await _raw(store, "usage", 0, 1, "0:x", START_MS, 0, names, numbers)


async def _raw(store: Store, name: str, *args: Any) -> Any:
    keys = store.functions.keys.all(PARTITION, str(store.incarnation))
    head = (FUNCTION_VERSION, 8, GENERATION_MS, store.incarnation, 1, "n")
    return await store.client.fcall(f"{store.functions.library}_{name}", len(keys), *keys, *head, *args)


async def test_s13_a_sum_that_leaves_its_bounds_makes_the_account_unknown(store: Store) -> None:
    ops = [charge(0, "a1", "s1", 2**53 - 1), charge(1, "a1", "s2", 1), charge(2, "a1", "s3", 5)]
    assert await store.sink.apply(batch(OWNER, 0, 3, ops)) == Applied(3)
    assert await store.reader.read_balance("a1") == Unknown("overflow")
    state = await store.state()
    assert state["accounts"]["a1"].used == 2**53 - 1
    assert state["unknown"]["a1"].offset == 3


async def test_s19_a_repeated_session_counts_once_in_a_batch_and_over_batches(store: Store) -> None:
    ops = [charge(0, "a1", "s1", 500), charge(1, "a1", "s1", 500, event_id="other")]
    assert await store.sink.apply(batch(OWNER, 0, 2, ops)) == Applied(2)
    later = START_MS + 2 * GENERATION_MS  # the oldest time at which it may be forgotten is a generation later
    made = batch(OWNER, 2, 3, [charge(2, "a1", "s1", 900, log_time_ms=later)], log_time_ms=later)
    assert await store.sink.apply(made) == Applied(3)
    known = await balance(store)
    assert (known.used_micros, known.last_charge_offset) == (500, 0)


async def test_r7_the_same_session_id_of_another_kind_or_account_is_another_session(store: Store) -> None:
    await store.sink.apply(entries(OWNER, 1, [opened("a2")]))
    ops = [
        charge(0, "a1", "s1", 1),
        charge(1, "a1", "s1", 2, kind="message"),
        charge(2, "a1", "s1", 3, kind="item"),
        charge(3, "a2", "s1", 4),
    ]
    assert await store.sink.apply(batch(OWNER, 0, 4, ops)) == Applied(4)
    assert ((await balance(store)).used_micros, (await balance(store, "a2")).used_micros) == (6, 4)


async def test_s22_completed_before_started_ends_the_same(store: Store) -> None:
    ops = [charge(0, "a1", "s1", 500), hold(1, "a1", "s1", 600), hold(2, "a1", "s1", 900, elapsed=60)]
    assert await store.sink.apply(batch(OWNER, 0, 3, ops)) == Applied(3)
    known = await balance(store)
    assert (known.used_micros, known.held_micros) == (500, 0)
    assert await store.reader.read_holds("a1") == []


async def test_a_smaller_elapsed_changes_nothing_and_a_larger_one_extends(store: Store) -> None:
    ops = [hold(0, "a1", "s1", 600, elapsed=30), hold(1, "a1", "s1", 300, elapsed=0)]
    assert await store.sink.apply(batch(OWNER, 0, 2, ops)) == Applied(2)
    assert (await balance(store)).held_micros == 600
    made = batch(OWNER, 2, 3, [hold(2, "a1", "s1", 1_200, elapsed=90, log_time_ms=START_MS + 5)])
    assert await store.sink.apply(made) == Applied(3)
    holds = await store.reader.read_holds("a1")
    assert [(h.session, h.amount_micros, h.elapsed) for h in holds] == [("s1", 1_200, 90)]  # type: ignore[union-attr]
    known = await balance(store)
    assert (known.held_micros, known.available_micros) == (1_200, 20_000_000 - 1_200)


async def test_s23_s24_a_lease_ends_in_log_time_only_at_the_end_and_releases_once(store: Store) -> None:
    assert await store.sink.apply(batch(OWNER, 0, 1, [hold(0, "a1", "s1", 600)])) == Applied(1)
    late = START_MS + CALL_LEASE_MS
    assert await store.sink.apply(batch(OWNER, 1, 2, [], log_time_ms=late)) == Applied(2)
    assert await store.sink.tend(OWNER, PARTITION, at_end=False) == Tended(True)
    assert (await balance(store)).held_micros == 600
    assert await store.sink.tend(OWNER, PARTITION, at_end=True) == Tended(False)
    assert await store.sink.tend(OWNER, PARTITION, at_end=True) == Tended(False)
    assert (await balance(store)).held_micros == 0
    made = batch(OWNER, 2, 3, [charge(2, "a1", "s1", 500)], log_time_ms=late)
    assert await store.sink.apply(made) == Applied(3)
    known = await balance(store)
    assert (known.used_micros, known.held_micros) == (500, 0)
    assert (await store.state())["times"][2] == 1  # one expiry


async def test_s05_a_store_behind_its_owner_s_belief_expires_nothing_and_says_where_it_stands(store: Store) -> None:
    """A failover went back: what the lost tail renewed must not expire before the tail has been applied again."""
    late = START_MS + CALL_LEASE_MS
    made = batch(OWNER, 0, 1, [hold(0, "a1", "s1", 600)], log_time_ms=late)
    assert await store.sink.apply(made) == Applied(1)
    believed = {TOPICS.usage: Position(5, "4:x"), TOPICS.entries: Position(1, "0:x")}
    answer = await store.sink.tend(OWNER, PARTITION, at_end=True, positions=believed)
    assert answer == Tended(True)
    assert answer.positions[TOPICS.usage] == Position(1, made.fingerprint)  # type: ignore[union-attr]
    assert answer.positions[TOPICS.entries].offset == 1  # type: ignore[union-attr]
    believed = dict(answer.positions)  # type: ignore[union-attr]
    assert await store.sink.tend(OWNER, PARTITION, at_end=True, positions=believed) == Tended(False)


async def test_s24_progressed_brings_an_expired_hold_back(store: Store) -> None:
    late = START_MS + CALL_LEASE_MS
    await store.sink.apply(batch(OWNER, 0, 1, [hold(0, "a1", "s1", 600)], log_time_ms=late))
    await store.sink.tend(OWNER, PARTITION, at_end=True)
    again = hold(1, "a1", "s1", 700, elapsed=60, log_time_ms=late)
    assert await store.sink.apply(batch(OWNER, 1, 2, [again], log_time_ms=late)) == Applied(2)
    assert (await balance(store)).held_micros == 700


async def test_s46_usage_before_its_account_asks_for_the_entries_first(store: Store) -> None:
    made = batch(OWNER, 0, 1, [charge(0, "late", "s1", 500)])
    before = await store.state()
    assert await store.sink.apply(made) == CatchUp(TOPICS.entries)
    assert await store.state() == before
    assert await store.sink.apply(entries(OWNER, 1, [opened("late")])) == Applied(2)
    assert await store.sink.apply(made) == Applied(1)
    assert (await balance(store, "late")).used_micros == 500


async def test_s46_usage_passed_before_the_opening_entry_is_derived_from_the_ledger(store: Store) -> None:
    made = batch(OWNER, 0, 5, [charge(4, "late", "s1", 500)], caught_up=True)
    assert await store.sink.apply(made) == Applied(5)
    assert await store.reader.read_balance("late") == NoSuchAccount()
    assert await store.sink.apply(entries(OWNER, 1, [opened("late", at=2)])) == Applied(2)
    assert await store.reader.read_balance("late") == Unknown("deriving")
    more = batch(OWNER, 5, 8, [charge(6, "late", "s2", 70), hold(7, "late", "s3", 9)])
    assert await store.sink.apply(more) == Applied(8)
    ledger = FixedLedger({"late": _snapshot(used=570, last=6, settled=["s1", "s2"])})
    sink = RedisSink(store.functions, TOPICS, ledger=ledger)
    claimed = await sink.claim(PARTITION, "n2")
    assert isinstance(claimed, Claimed)
    assert await sink.tend(claimed.owner, PARTITION, at_end=True) == Tended(False)
    assert ledger.asked[0][:3] == ("late", PARTITION, 8)
    known = await balance(store, "late")
    assert (known.used_micros, known.last_charge_offset, known.credit_micros) == (570, 6, 20_000_000)
    again = batch(claimed.owner, 8, 9, [charge(8, "late", "s2", 70)])
    assert await sink.apply(again) == Applied(9)
    assert (await balance(store, "late")).used_micros == 570


async def test_s46_holds_passed_while_the_account_was_unknown_come_back_with_its_derivation(store: Store) -> None:
    """A call that begins in the race with its account's opening, or while that is derived, is held for as if it had
    not been passed: not where it has ended, and never twice."""
    before = batch(OWNER, 0, 5, [Stray(None, "late", 3), Stray(None, "late", 4)], caught_up=True)  # type: ignore[arg-type]
    assert await store.sink.apply(before) == Applied(5)
    assert await store.sink.apply(entries(OWNER, 1, [opened("late", at=4), opened("a2")])) == Applied(3)
    more = [hold(5, "late", "s2", 9), charge(6, "late", "s3", 70), hold(7, "late", "s4", 5), hold(8, "a2", "x", 1)]
    assert await store.sink.apply(batch(OWNER, 5, 9, more)) == Applied(9)
    end_ms = START_MS + CALL_LEASE_MS
    passed = {
        "c/late/s1": HoldRecord(600, 0, end_ms),
        "c/late/s2": HoldRecord(9, 0, end_ms),
        "c/late/s3": HoldRecord(7, 0, end_ms),  # settled: its completion came in another order
        "c/late/s4": HoldRecord(5, 0, START_MS),  # its lease has run out: told and released at the log's end
    }
    log, ledger = FixedLog({"late": passed}), FixedLedger({"late": _snapshot(used=70, last=6, settled=["s3"])})
    sink = RedisSink(store.functions, TOPICS, ledger=ledger, passed=log)
    claimed = await sink.claim(PARTITION, "n2")
    assert isinstance(claimed, Claimed)
    for _ in range(2):
        assert await sink.tend(claimed.owner, PARTITION, at_end=True) == Tended(True)
    assert log.asked == [(PARTITION, {"late": Span(4, 8)})]
    known = await balance(store, "late")
    assert (known.used_micros, known.held_micros) == (70, 609)
    assert {signal.kind for signal in await store.signals()} >= {"expired"}
    settles = [charge(9, "late", "s1", 500), charge(10, "late", "s2", 8), charge(11, "late", "s4", 5)]
    assert await sink.apply(batch(claimed.owner, 9, 12, settles)) == Applied(12)
    known = await balance(store, "late")
    assert (known.used_micros, known.held_micros) == (583, 0)


async def test_s46_an_account_whose_passed_usage_cannot_be_priced_yet_stays_unknown(store: Store) -> None:
    passed = batch(OWNER, 0, 1, [Stray(None, "a1", 0)], caught_up=True)  # type: ignore[arg-type]
    assert await store.sink.apply(passed) == Applied(1)
    log = FixedLog({})
    sink = RedisSink(store.functions, TOPICS, ledger=FixedLedger({"a1": _snapshot()}), passed=log)
    claimed = await sink.claim(PARTITION, "n2")
    assert isinstance(claimed, Claimed)
    for _ in range(2):  # the second time it is left alone for a while
        await sink.tend(claimed.owner, PARTITION, at_end=True)
    assert await store.reader.read_balance("a1") == Unknown("deriving")
    assert log.asked == [(PARTITION, {"a1": Span(0, 1)})]


async def test_s46_an_account_opened_above_its_strays_is_known_at_once(store: Store) -> None:
    made = batch(OWNER, 0, 5, [Stray(None, "late", 4)])  # type: ignore[arg-type]  # the store needs no record
    assert await store.sink.apply(made) == Applied(5)
    assert await store.sink.apply(entries(OWNER, 1, [opened("late", at=5)])) == Applied(2)
    assert (await balance(store, "late")).used_micros == 0


async def test_s46_forgotten_strays_raise_the_floor(store: Store) -> None:
    strays: list[Any] = [Stray(None, f"x{i}", i) for i in range(STRAYS + 2)]  # type: ignore[arg-type]
    assert await store.sink.apply(batch(OWNER, 0, 10, strays)) == Applied(10)
    state = await store.state()
    assert (len(state["strays"]), state["times"][1]) == (STRAYS, 2)
    await store.sink.apply(entries(OWNER, 1, [opened("x0", at=0), opened("x9", at=2)]))
    assert await store.reader.read_balance("x0") == Unknown("deriving")
    assert (await balance(store, "x9")).used_micros == 0


async def test_s46_passed_usage_of_a_known_account_asks_for_the_catalogue_first(store: Store) -> None:
    # the catalogue may list an account from one record of a batch to the next
    ops = [Stray(None, "a1", 0), charge(1, "a1", "s1", 500)]  # type: ignore[arg-type]  # the store needs no record
    assert await store.sink.apply(batch(OWNER, 0, 2, ops)) == CatchUp(TOPICS.tariffs)
    assert await store.sink.apply(batch(OWNER, 0, 2, ops, caught_up=True)) == Applied(2)
    assert await store.reader.read_balance("a1") == Unknown("deriving")


async def test_a_gap_in_ledger_seq_is_unknown_until_derived(store: Store) -> None:
    assert await store.sink.apply(batch(OWNER, 0, 2, [hold(0, "a1", "s9", 600)])) == Applied(2)
    made = [posted("a1", 1, 7), posted("a1", 2, 7), posted("a1", 4, 7)]
    assert await store.sink.apply(entries(OWNER, 1, made)) == Applied(4)
    assert await store.reader.read_balance("a1") == Unknown("gap")
    old = _snapshot(seq=3)
    sink = RedisSink(store.functions, TOPICS, ledger=FixedLedger({"a1": old}))
    claimed = await sink.claim(PARTITION, "n2")
    assert isinstance(claimed, Claimed)
    await sink.tend(claimed.owner, PARTITION, at_end=True)
    assert await store.reader.read_balance("a1") == Unknown("gap")
    sink = RedisSink(store.functions, TOPICS, ledger=FixedLedger({"a1": _snapshot(seq=4)}))
    claimed = await sink.claim(PARTITION, "n3")
    assert isinstance(claimed, Claimed)
    assert await sink.tend(claimed.owner, PARTITION, at_end=True) == Tended(True)
    known = await balance(store)
    assert (known.ledger_seq, known.held_micros) == (4, 600)  # its open hold is still held


async def test_s46_a_snapshot_is_not_used_when_usage_was_passed_meanwhile(store: Store) -> None:
    """A record passed between the question and the answer moves D: the answer is as of the old one."""
    assert await store.sink.apply(entries(OWNER, 1, [posted("a1", 3, 7)])) == Applied(2)
    claimed = await store.sink.claim(PARTITION, "n2")
    assert isinstance(claimed, Claimed)

    class Racing(FixedLedger):
        async def derive(self, account: str, partition: int, below_offset: int, settled_since_ms: int) -> Any:
            if below_offset == 0:
                made = batch(claimed.owner, 0, 1, [charge(0, "a1", "s1", 500)])
                assert await store.sink.apply(made) == Applied(1)
            return await super().derive(account, partition, below_offset, settled_since_ms)

    racing = Racing({"a1": _snapshot(seq=3)})
    sink = RedisSink(store.functions, TOPICS, ledger=racing)
    again = await sink.claim(PARTITION, "n3")
    assert isinstance(again, Claimed)
    claimed = again
    assert await sink.tend(again.owner, PARTITION, at_end=True) == Tended(False)
    assert await store.reader.read_balance("a1") == Unknown("gap")
    racing.snapshots["a1"] = _snapshot(seq=3, used=500, last=0)
    assert await sink.tend(again.owner, PARTITION, at_end=True) == Tended(False)
    assert (await balance(store)).used_micros == 500
    assert [asked[2] for asked in racing.asked] == [0, 1]


async def test_r5_debits_other_than_usage_are_excluded_until_acknowledged(store: Store) -> None:
    made = [posted("a1", 2, -700), posted("a1", 3, 100), posted("a1", 4, -50)]
    assert await store.sink.apply(entries(OWNER, 1, made)) == Applied(4)
    known = await balance(store)
    assert (known.credit_micros, known.excluded_micros) == (20_000_000 - 650, 750)
    acknowledged = DebitsAcknowledged(account="a1", ledger_seq=5, timeline="t1")
    assert await store.sink.apply(entries(OWNER, 4, [acknowledged])) == Applied(5)
    known = await balance(store)
    assert (known.credit_micros, known.excluded_micros, known.ledger_seq) == (20_000_000 - 650, 0, 5)


async def test_an_entry_of_another_timeline_halts(store: Store) -> None:
    made = entries(OWNER, 1, [opened("a2", timeline="restored")])
    reason = "timeline: the store has t1, an entry restored"
    assert await store.sink.apply(made) == Halted(reason)
    assert await store.sink.apply(batch(OWNER, 0, 1, [])) == Halted(reason)
    assert await store.sink.claim(PARTITION, "next") == Halted(reason)
    assert await store.reader.read_balance("a1") == Unknown("halted", reason)


async def test_s39_a_cancelled_call_does_not_leave_its_reply_to_the_next(store: Store) -> None:
    """The server is kept busy, the call cancelled: later calls read their own replies."""
    for cut_ms in (0, 1, 2, 5):
        task = asyncio.create_task(store.reader.read_balance("a1"))
        await asyncio.sleep(cut_ms / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await store.reader.read_balance("nobody") == NoSuchAccount()
        assert (await balance(store)).credit_micros == 20_000_000


async def test_a_lease_is_renewed_but_never_shortened(store: Store) -> None:
    ops = [hold(0, "a1", "s1", 600, elapsed=30), hold(1, "a1", "s1", 600, elapsed=30, lease_ms=5)]
    assert await store.sink.apply(batch(OWNER, 0, 2, ops)) == Applied(2)
    assert (await store.state())["holds"]["c/a1/s1"].lease_end_ms == START_MS + CALL_LEASE_MS
    later = hold(2, "a1", "s1", 600, elapsed=30, log_time_ms=START_MS + 7)
    assert await store.sink.apply(batch(OWNER, 2, 3, [later])) == Applied(3)
    assert (await store.state())["holds"]["c/a1/s1"].lease_end_ms == START_MS + 7 + CALL_LEASE_MS


async def test_r10_a_huge_hold_is_replaced_without_losing_a_unit(store: Store) -> None:
    """Found by the differential test: held + new - old left 2^53 on the way."""
    ops = [hold(0, "a1", "s1", 2**53 - 1), hold(1, "a1", "s1", 600_000, elapsed=1)]
    assert await store.sink.apply(batch(OWNER, 0, 2, ops)) == Applied(2)
    assert (await balance(store)).held_micros == 600_000


def _snapshot(
    *, used: int = 0, last: int = -1, seq: int = 1, settled: list[str] | None = None
) -> AccountSnapshot:
    return AccountSnapshot(
        timeline="t1",
        currency="USD",
        credit_micros=20_000_000,
        used_micros=used,
        credit_limit_micros=0,
        recharge_below_micros=None,
        excluded_micros=0,
        ledger_seq=seq,
        last_charge_offset=last,
        status="open",
        settled=[("call", session) for session in settled or []],
    )
