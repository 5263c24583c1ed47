"""One batch is one transaction: each session once, each record accounted for, the position with it."""

from __future__ import annotations

import asyncio
import random

import asyncpg
from ledger_support import (
    Ledger,
    blocked_on_lock,
    charge,
    dead_letter,
    make_batch,
    names,
    record,
    stray,
)

from billing.deadletters.letters import letters
from billing.ledger import metrics
from billing.ledger.dead_letters import findings
from billing.ledger.entries import Posting, settlement_postings
from billing.ledger.opening import open_account
from billing.ledger.recent import RecentSessions
from billing.ledger.sink import PostgresSink
from billing.ledger.snapshots import positions
from billing.ledger.terms import NewAccount, Opened
from billing.ledger.usage import usage_of
from billing.stream.record import Position, fingerprint
from billing.stream.sink import Applied, Behind, CatchUp, Fenced, Halted, Unavailable
from schemas.reasons import DeadLetterReason


async def test_r8_effects_and_position_are_one_step(ledger: Ledger) -> None:
    one, two = names(0, 2)
    await ledger.open(one, two, credit_micros=5_000_000)
    owner = await ledger.claim()
    end = await ledger.settle(owner, 0, [charge(3, one, "a"), charge(4, two, "b", 0, matched=""), dead_letter(5)])
    assert (await positions(ledger.pool))[0].position == Position(end, fingerprint(record(5)))
    assert await ledger.used(one) == 600_000
    assert [usage.session_id async for usage in usage_of(ledger.pool, two)] == ["b"]
    await ledger.verified()


async def test_r8_a_batch_that_fails_leaves_nothing(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    owner = await ledger.claim()
    ops = [charge(0, one, "a"), charge(1, "nobody", "b"), dead_letter(2)]
    answer = await ledger.sink.apply(make_batch(owner, 0, ops))
    assert isinstance(answer, Halted)
    assert answer.reason == "account nobody is charged in USD, but the ledger has no such account"
    assert await ledger.used(one) == 0
    assert [await ledger.count(table) for table in ("usage", "dead_letters", "findings")] == [0, 0, 0]
    assert (await positions(ledger.pool))[0].position == Position(0, "")


async def test_s01_a_batch_sent_again_after_a_lost_reply_is_applied_once(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    batch = make_batch(await ledger.claim(), 0, [charge(0, one, "a"), dead_letter(1)])
    assert await ledger.sink.apply(batch) == Applied(2)
    assert await ledger.sink.apply(batch) == Behind(Position(2, batch.fingerprint))
    assert await ledger.used(one) == 600_000
    await ledger.verified()


async def test_s02_an_owner_that_was_replaced_changes_nothing(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    zombie = await ledger.claim()
    owner = await ledger.claim()
    assert owner.epoch > zombie.epoch
    assert await ledger.sink.apply(make_batch(zombie, 0, [charge(0, one, "a")])) == Fenced()
    assert await ledger.used(one) == 0
    await ledger.sink.halt(zombie, 0, "a zombie's opinion")
    assert await ledger.settle(owner, 0, [charge(0, one, "a")]) == 1


async def test_s19_r7_repeats_under_the_same_or_another_id_count_once(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    owner = await ledger.claim()
    ops = [charge(0, one, "a"), charge(1, one, "a"), charge(2, one, "a", event_id="another", event_source="other")]
    end = await ledger.settle(owner, 0, ops)
    end = await ledger.settle(owner, end, [charge(3, one, "a"), charge(4, one, "b")])
    assert await ledger.used(one) == 1_200_000
    assert await ledger.count("findings") == 0
    # another kind of session with the same id is another session
    message = {"kind": "message", "tariff_kind": "sms", "quantity": 1, "status": "sent"}
    await ledger.settle(owner, end, [charge(5, one, "a", 10_000, **message)])
    assert await ledger.used(one) == 1_210_000
    await ledger.verified()


async def test_s20_r7_a_late_differing_repeat_is_a_finding_and_the_lower_offset_counts(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    owner = await ledger.claim()
    ops = [charge(1, one, "a", 900_000, quantity=90), charge(0, one, "a"), charge(2, one, "b")]
    end = await ledger.settle(owner, 0, ops)
    await ledger.settle(owner, end, [charge(9, one, "b", 700_000, quantity=70)])
    assert await ledger.used(one) == 1_200_000
    found = [f async for f in findings(ledger.pool)]
    assert [(f.kind, f.session_id, f.kept_offset, f.refused_offset) for f in found] == [
        ("differing_completion", "a", 0, 1),
        ("differing_completion", "b", 2, 9),
    ]
    assert found[1].detail is not None
    assert (found[1].detail["kept"]["quantity"], found[1].detail["refused"]["quantity"]) == (60, 70)
    await ledger.verified()


async def test_s20_r7_a_duplicate_that_nobody_remembers_is_refused_by_the_key_and_compared(ledger: Ledger) -> None:
    one, two = names(0, 2)
    await ledger.open(one, two)
    ledger.sink = PostgresSink(ledger.runtime, ledger.settings, RecentSessions(1, careful_batches=1))
    owner = await ledger.claim()
    await ledger.settle(owner, 0, [charge(0, one, "a")])
    await ledger.settle(owner, 1, [charge(1, two, "b")])
    before = metrics.late_duplicates._value.get()
    ops = [charge(2, one, "a"), charge(3, one, "a2"), charge(4, two, "b", 700_000, quantity=70), stray(5, "nobody")]
    await ledger.settle(owner, 2, ops)
    assert metrics.late_duplicates._value.get() == before + 1
    assert (await ledger.used(one), await ledger.used(two)) == (1_200_000, 600_000)
    assert [(f.session_id, f.kept_offset, f.refused_offset) async for f in findings(ledger.pool)] == [("b", 1, 4)]
    assert await ledger.count("dead_letters") == 1
    await ledger.verified()


async def test_s21_r9_poison_is_kept_with_its_bytes_and_the_partition_moves_on(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    batch = make_batch(await ledger.claim(), 0, [dead_letter(0, value=b"\x00\xff{"), charge(1, one, "a")])
    assert await ledger.sink.apply(batch) == Applied(2)
    assert isinstance(await ledger.sink.apply(batch), Behind)
    (letter,) = [letter.row() async for letter in letters(ledger.pool)]
    assert (letter.topic, letter.partition, letter.offset) == ("usage.events", 0, 0)
    assert letter.reason == DeadLetterReason.NOT_JSON
    assert (letter.key_base64, letter.value_base64) == ("aw==", "AP97")
    assert [(header.name, header.value_base64) for header in letter.headers] == [("ce_id", "/w==")]
    assert await ledger.used(one) == 600_000
    await ledger.verified()


async def test_r9_free_text_with_a_null_character_does_not_stop_the_partition(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    owner = await ledger.claim()
    odd = charge(0, one, "a", origin="\x00", event_id="x\x00y")
    await ledger.settle(owner, 0, [odd, charge(1, one, "a", origin="\x00"), stray(2, "no\x00")])
    assert await ledger.count("findings") == 0
    assert await ledger.count("dead_letters") == 1


async def test_s46_usage_of_an_account_that_the_ledger_does_not_have_is_a_dead_letter(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    owner = await ledger.claim()
    end = await ledger.settle(owner, 0, [stray(0, one), stray(1, "elsewhere")])
    (opened,) = await ledger.open(one)
    assert opened.usage_position == end == 2
    await ledger.open(*names(3, 1, "away"))
    end = await ledger.settle(owner, end, [stray(2, names(3, 1, "away")[0])])
    found = {letter.place.offset: letter.reason async for letter in letters(ledger.pool)}
    assert found == {0: "unknown_account", 1: "unknown_account", 2: "wrong_partition"}


async def test_s46_usage_of_an_account_that_the_catalogue_does_not_show_yet_waits_for_it(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    owner = await ledger.claim()
    shown_meanwhile = [stray(0, one), dead_letter(1), charge(2, one, "b")]  # from the last record on
    assert await ledger.sink.apply(make_batch(owner, 0, shown_meanwhile)) == CatchUp(ledger.settings.topics.tariffs)
    caught_up = make_batch(owner, 0, shown_meanwhile, caught_up=True)
    assert isinstance(await ledger.sink.apply(caught_up), Unavailable)
    assert await ledger.count("dead_letters") == await ledger.count("usage") == 0
    assert await ledger.settle(owner, 0, [charge(0, one, "a"), dead_letter(1), charge(2, one, "b")]) == 3


async def test_s46_opening_and_settlement_of_the_same_partition_are_ordered(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    owner = await ledger.claim()
    async with ledger.pool.acquire() as connection, connection.transaction():
        # a settlement under way: the opening waits for its position
        await connection.execute("set local session_replication_role = replica")  # triggers off: moved by hand below
        await connection.execute("select * from positions where partition = 0 for update")
        new = NewAccount(one, "USD", "basic")
        opening = asyncio.create_task(open_account(ledger.pool, new, author="tests"))
        await blocked_on_lock(ledger.pool)
        await connection.execute("update positions set next_offset = 7 where partition = 0")
    opened = await opening
    assert isinstance(opened, Opened)
    assert opened.usage_position == 7
    assert isinstance(await ledger.sink.apply(make_batch(owner, 7, [stray(7, one)])), CatchUp)


async def test_s46_in_a_race_each_record_is_refused_below_the_opening_and_awaited_above(ledger: Ledger) -> None:
    owner = await ledger.claim()
    accounts = names(0, 12, "race")
    opening = [asyncio.create_task(ledger.open(account)) for account in accounts]
    end, awaited = 0, {}
    for account in accounts * 3:
        answer = await ledger.sink.apply(make_batch(owner, end, [stray(end, account)]))
        if isinstance(answer, CatchUp):
            awaited[account] = end
            end = await ledger.settle(owner, end, [charge(end, account, f"s{end}")])
        else:
            assert answer == Applied(end + 1)
            end += 1
    opened = {answer.account: answer.usage_position for task in opening for answer in await task}
    refused = [letter.row() async for letter in letters(ledger.pool)]
    assert all(offset >= opened[account] for account, offset in awaited.items())
    by_offset = {offset: account for offset, account in enumerate(accounts * 3)}
    assert all(letter.offset < opened[by_offset[letter.offset]] for letter in refused)
    await ledger.verified()


async def test_s27_a_deadlock_runs_the_whole_batch_again(ledger: Ledger) -> None:
    one, two = sorted(names(0, 2))
    await ledger.open(one, two)
    owner = await ledger.claim()
    async with ledger.pool.acquire() as other, other.transaction():
        # the other side is patient, so that the settlement is the one that loses
        await other.execute("set local deadlock_timeout = '20s'")
        await other.execute("select * from balances where account_id = $1 for update", two)
        settling = asyncio.create_task(ledger.settle(owner, 0, [charge(0, one, "a"), charge(1, two, "b")]))
        await blocked_on_lock(ledger.pool)
        await other.execute("select * from balances where account_id = $1 for update", one)
    assert await settling == 2
    assert (await ledger.used(one), await ledger.used(two)) == (600_000, 600_000)
    await ledger.verified()


async def test_s27_a_batch_that_always_loses_is_unavailable_in_the_end(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    owner = await ledger.claim()
    await ledger.pool.execute(
        "create function lose() returns trigger language plpgsql as"
        " $$ begin raise exception 'lost' using errcode = 'serialization_failure'; end $$;"
        " create trigger lose before insert on usage for each row execute function lose()"
    )
    answer = await ledger.sink.apply(make_batch(owner, 0, [charge(0, one, "a")]))
    assert answer == Unavailable("SerializationError: lost")
    await ledger.pool.execute("drop trigger lose on usage")
    assert await ledger.settle(owner, 0, [charge(0, one, "a")]) == 1


async def test_r6_settlements_are_booked_as_the_pure_posting_set_says(ledger: Ledger) -> None:
    accounts = names(2, 30, "many")
    await ledger.open(*accounts, credit_micros=1_000)
    owner = await ledger.claim(2)
    rnd, end = random.Random(7), 0
    for _ in range(4):
        ops = [
            charge(end + i, rnd.choice(accounts), f"s{rnd.randrange(150)}", rnd.choice((0, 1, 7_000, 2**52)))
            for i in range(60)
        ]
        fresh = await _fresh(ledger, ops)
        end = await ledger.settle(owner, end, ops, partition=2)
        rows = await ledger.pool.fetch(
            "select p.* from postings p join journal j on j.id = p.journal_id where j.to_offset = $1", end
        )
        booked = {
            Posting(r["ledger_account"], r["account_id"], r["partition"], r["currency"], r["amount_micros"])
            for r in rows
        }
        assert booked == set(settlement_postings(2, fresh))
    await ledger.verified()


async def _fresh(ledger: Ledger, ops: list) -> list[tuple[str, str, int]]:
    """What the first completion of each session that is not settled yet charges."""
    settled = {(r["account_id"], r["session_id"]) for r in await ledger.pool.fetch("select * from usage")}
    first = {}
    for op in ops:
        if (op.account, op.session) not in settled:
            first.setdefault((op.account, op.session), (op.account, op.currency, op.amount_micros))
    return list(first.values())


async def test_a_total_beyond_64_bits_halts_instead_of_going_round(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    owner = await ledger.claim()
    ops = [charge(i, one, f"s{i}", 2**53 - 1) for i in range(1025)]
    assert isinstance(await ledger.sink.apply(make_batch(owner, 0, ops)), Halted)
    assert await ledger.count("usage") == 0


async def test_closed_and_suspended_accounts_are_still_charged(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    for status in ("suspended", "closed"):
        await ledger.pool.execute("update accounts set status = $1", status)
        owner = await ledger.claim()
        position = (await positions(ledger.pool))[0].position.offset
        await ledger.settle(owner, position, [charge(position, one, f"s{position}")])
    assert await ledger.used(one) == 1_200_000


async def test_the_database_refuses_a_session_twice_whatever_a_consumer_does(ledger: Ledger) -> None:
    (one,) = names(0, 1)
    await ledger.open(one)
    await ledger.settle(await ledger.claim(), 0, [charge(0, one, "a")])
    try:
        await ledger.pool.execute("insert into usage select * from usage")
    except asyncpg.UniqueViolationError:
        return
    raise AssertionError("a session was settled twice (R7)")
