"""Signals into due rows: exactly once with the position, whatever comes on the topic."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from recharge_support import Books

from billing.deadletters.letters import letters
from billing.ledger.accounts import set_account
from billing.ledger.terms import Changed, Changes
from billing.recharge.due_sink import EXHAUSTED, LOW, RESTORED, Asked, DueSink, SignalInterpreter, SignalOp
from billing.settings import Settings
from billing.stream.record import Position, StoredRecord, fingerprint
from billing.stream.sink import Applied, Batch, Behind, Claimed, Fenced, Halted, Owner
from billing.usage.ops import DeadLetter
from billing.usage.partitioner import home_partition
from schemas.reasons import DeadLetterReason

TOPIC = "billing.signals"
HERE, ALSO_HERE = "acme-21", "other-0"  # their home is partition 0


def signal(offset: int, account: str, type_: str = LOW, *, partition: int = 0, position: int = 5) -> StoredRecord:
    event = {
        "specversion": "1.0",
        "id": f"e{offset}",
        "source": "billing/inflight",
        "type": type_,
        "subject": account,
        "time": "2026-11-21T12:00:00Z",
        "data": {"account": account, "usage_position": position, "level_micros": 1, "a_later_member": None},
    }
    value = msgspec.json.encode(event)
    return StoredRecord(TOPIC, partition, offset, 1_000_000 + offset, account.encode(), value)


def raw(offset: int, value: bytes | None, partition: int = 0) -> StoredRecord:
    return StoredRecord(TOPIC, partition, offset, 1_000_000 + offset, b"k", value)


def batch(owner: Owner, records: Sequence[StoredRecord]) -> Batch[SignalOp]:
    found = SignalInterpreter().interpret(records)
    assert found.taken == len(records)
    first, last = records[0], records[-1]
    return Batch(
        *(owner, TOPIC, first.partition, first.offset, last.offset + 1, fingerprint(last), last.timestamp, found.ops)
    )


async def claimed(sink: DueSink, partition: int = 0, nonce: str = "n") -> Owner:
    answer = await sink.claim(partition, nonce)
    assert isinstance(answer, Claimed), answer
    return answer.owner


def reasons(records: Sequence[StoredRecord]) -> list[DeadLetterReason | str]:
    ops = SignalInterpreter().interpret(records).ops
    return [op.reason if isinstance(op, DeadLetter) else op.account for op in ops]


def test_what_a_record_asks_for() -> None:
    asking = [signal(0, "a", LOW), signal(1, "b", EXHAUSTED), signal(2, "c", RESTORED)]
    assert reasons(asking) == ["a", "b", "c"]
    assert reasons([signal(0, "a", "billing.session.cutoff.v1"), signal(1, "a", "billing.later.v9")]) == []
    deep = b'{"data":' + b"[" * 50_000
    assert reasons([raw(0, None), raw(1, b"\xff"), raw(2, deep)]) == [DeadLetterReason.NOT_JSON] * 3
    assert reasons([raw(0, b"[]"), raw(1, b"{}")]) == [DeadLetterReason.NOT_CLOUDEVENTS] * 2
    assert reasons([signal(0, "a", position=-1)]) == [DeadLetterReason.INVALID_DATA]
    assert reasons([signal(0, "a")._replace(key=b"b")]) == [DeadLetterReason.KEY_MISMATCH]
    assert reasons([signal(0, "a")._replace(key=b"\xff")]) == [DeadLetterReason.KEY_MISMATCH]


async def test_r8_due_rows_and_position_in_one_step(books: Books, settings: Settings) -> None:
    """A position counts in the account's own partition: "acme" was in this one when it was told (S16)."""
    sink = DueSink(books.pool, settings)
    for account in (HERE, ALSO_HERE, "acme"):
        await books.open(account)
    owner = await claimed(sink)
    records = [signal(0, HERE), signal(1, ALSO_HERE, EXHAUSTED), signal(2, HERE, position=9), signal(3, "acme")]
    assert await sink.apply(batch(owner, records)) == Applied(4)
    assert await sink.apply(batch(owner, records)) == Behind(Position(4, fingerprint(records[-1])))
    due = {row.account: row for row in await books.store.claim_due(10)}
    assert {name: row.usage_position for name, row in due.items()} == {HERE: 9, ALSO_HERE: 5, "acme": 0}
    newer = await claimed(sink, nonce="m")
    assert await sink.apply(batch(owner, [signal(4, HERE)])) == Fenced()
    assert await sink.apply(batch(newer, [signal(4, HERE)])) == Applied(5)
    (again,) = await books.store.claim_due(10)
    assert again.signal > due[HERE].signal


async def test_a_restored_balance_asks_only_where_the_account_is_suspended(books: Books, settings: Settings) -> None:
    sink = DueSink(books.pool, settings)
    for account in ("open", "suspended", "closed"):
        await books.open(account)
    for status in ("suspended", "closed"):
        answer = await set_account(books.pool, status, Changes(status=status), author="tests")
        assert isinstance(answer, Changed)
    names = ("open", "suspended", "closed")
    owner = await claimed(sink)
    assert await sink.apply(batch(owner, [signal(i, name, RESTORED) for i, name in enumerate(names)])) == Applied(3)
    assert [due.account for due in await books.store.claim_due(10)] == ["suspended"]
    assert await sink.apply(batch(owner, [signal(3 + i, name) for i, name in enumerate(names)])) == Applied(6)
    assert {due.account for due in await books.store.claim_due(10)} == {"open", "suspended"}


async def test_r9_strange_records_are_dead_letters_with_their_bytes(books: Books, settings: Settings) -> None:
    sink = DueSink(books.pool, settings)
    owner = await claimed(sink)
    assert await sink.apply(batch(owner, [raw(0, b"\x00nonsense"), signal(1, "nobody")])) == Applied(2)
    stored = [letter.row() async for letter in letters(books.pool)]
    assert [(row.topic, row.offset, row.reason.value) for row in stored] == [
        (TOPIC, 0, "not_json"),
        (TOPIC, 1, "unknown_account"),
    ]
    await books.verified()


async def test_a_halt_and_the_position_of_usage_are_apart(books: Books, settings: Settings) -> None:
    sink = DueSink(books.pool, settings)
    owner = await claimed(sink, 3)
    await sink.halt(owner, 3, "topic recreated")
    assert await sink.claim(3, "n") == Halted("topic recreated")
    assert isinstance(await books.sink.claim(3, "n"), Claimed)


@pytest.mark.parametrize("account", ["acme"])
async def test_an_empty_batch_over_a_hole_moves_the_position(books: Books, settings: Settings, account: str) -> None:
    sink = DueSink(books.pool, settings)
    partition = home_partition(account, books.partitions)
    owner = await claimed(sink, partition)
    hole: Batch[SignalOp] = Batch(owner, TOPIC, partition, 0, 4, "", 0, ())
    assert await sink.apply(hole) == Applied(4)
    assert isinstance(SignalInterpreter().interpret([signal(4, account)]).ops[0], Asked)
