"""Signals into due rows: the rows and the position change in one transaction, before Kafka hears of it.

Only the owner of a partition writes billing.signals, so a record that is none of ours means another writer or a bug. It
becomes a dead letter with its bytes (R9), shown by `billing dlq list` beside those of usage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from billing.ledger.completions import dead_letter_row
from billing.ledger.database import Connection, Pool, RollBack, lease
from billing.ledger.migrate import SIGNALS_TOPIC
from billing.ledger.queries import query
from billing.ledger.sink_base import LedgerSink
from billing.recharge import metrics
from billing.recharge.due import Mark, mark
from billing.settings import Settings
from billing.stream.record import Record
from billing.stream.sink import Applied, ApplyAnswer, Batch, Interpretation
from billing.usage.ops import DeadLetter
from schemas.common import Id, Offset
from schemas.reasons import DeadLetterReason

LOW = "billing.balance.low.v1"
EXHAUSTED = "billing.balance.exhausted.v1"
RESTORED = "billing.balance.restored.v1"
ASKING = frozenset({LOW, EXHAUSTED, RESTORED})
"""What asks for an evaluation: low and exhausted for a charge or a suspension, restored for the end of one. All other
types are for other readers and pass."""


class Asked(msgspec.Struct, frozen=True):
    """A signal that asks to evaluate `account`, as of `usage_position` of its home partition."""

    record: Record
    type: str
    account: str
    usage_position: int


SignalOp: TypeAlias = Asked | DeadLetter


class _Envelope(msgspec.Struct):
    specversion: str
    type: str
    subject: str
    data: msgspec.Raw


class _Data(msgspec.Struct):
    """What is read of the data, whichever version wrote the rest of it."""

    account: Id
    usage_position: Offset


_envelope = msgspec.json.Decoder(_Envelope)
_data = msgspec.json.Decoder(_Data)


class SignalInterpreter:
    """Records of billing.signals as operations; pure."""

    def interpret(self, records: Sequence[Record], before: Record | None = None) -> Interpretation[SignalOp]:
        ops = [op for op in map(read_signal, records) if op is not None]
        return Interpretation(ops, len(records))


def read_signal(record: Record) -> SignalOp | None:
    """What one record asks for; None: nothing of us."""
    try:
        envelope = _envelope.decode(record.value or b"")
    except msgspec.ValidationError as error:
        return DeadLetter(record, DeadLetterReason.NOT_CLOUDEVENTS, str(error)[:200])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return DeadLetter(record, DeadLetterReason.NOT_JSON, type(error).__name__)
    if envelope.type not in ASKING:
        return None
    try:
        data = _data.decode(envelope.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return DeadLetter(record, DeadLetterReason.INVALID_DATA, str(error)[:200])
    if not envelope.subject == data.account == (record.key or b"").decode("utf-8", "replace"):
        return DeadLetter(record, DeadLetterReason.KEY_MISMATCH, "key, subject and account differ")
    return Asked(record, envelope.type, data.account, data.usage_position)


class DueSink(LedgerSink[SignalOp]):
    """`billing.stream.sink.Sink` for SignalOp."""

    def __init__(self, pool: Pool, settings: Settings, *, on_due: Callable[[], None] | None = None) -> None:
        """`on_due` is called when accounts have become due, so that a worker beside need not wait for its timer."""
        super().__init__(pool, settings, logical=SIGNALS_TOPIC, topic=settings.topics.signals)
        self._on_due = on_due

    async def _apply(self, batch: Batch[SignalOp]) -> ApplyAnswer:
        asked = [op for op in batch.ops if isinstance(op, Asked)]
        letters = [op for op in batch.ops if isinstance(op, DeadLetter)]
        try:
            async with lease(self._pool) as connection, connection.transaction():
                letters += await self._store(connection, batch, asked, letters)
        except RollBack as rolled_back:
            answer: ApplyAnswer = rolled_back.answer
            return answer
        _count(asked, letters)
        if asked and self._on_due is not None:
            self._on_due()
        return Applied(batch.to_offset)

    async def _store(
        self, connection: Connection, batch: Batch[SignalOp], asked: Sequence[Asked], letters: Sequence[DeadLetter]
    ) -> list[DeadLetter]:
        """Everything of the batch, position included; returns the dead letters that only the ledger could tell."""
        position = await connection.fetchrow(query("sink.lock_position"), SIGNALS_TOPIC, batch.partition)
        refusal = self._check(batch, position)
        if refusal is not None:
            raise RollBack(refusal)
        unknown = await self._mark(connection, asked)
        rows = [dead_letter_row(SIGNALS_TOPIC, letter) for letter in (*letters, *unknown)]
        if rows:
            await connection.executemany(query("sink.add_dead_letter"), rows)
        await self._advance(connection, batch)
        return unknown

    async def _mark(self, connection: Connection, asked: Sequence[Asked]) -> list[DeadLetter]:
        """Due rows of the accounts that the ledger has; dead letters of the others (restored to an earlier time?)."""
        if not asked:
            return []
        rows = await connection.fetch(query("sink.known_accounts"), sorted({op.account for op in asked}))
        known = {row["id"]: row["home_partition"] for row in rows}
        await mark(
            connection,
            [
                Mark(op.account, _position(op, known[op.account]), op.type == RESTORED)
                for op in asked
                if op.account in known
            ],
        )
        return [
            DeadLetter(op.record, DeadLetterReason.UNKNOWN_ACCOUNT, "the ledger has no such account")
            for op in asked
            if op.account not in known
        ]


def _position(op: Asked, home: int) -> int:
    """Of a signal from before the account moved to its partition: nothing there is before it (S16)."""
    return op.usage_position if op.record.partition == home else 0


def _count(asked: Sequence[Asked], letters: Sequence[DeadLetter]) -> None:
    """After the commit."""
    for op in asked:
        metrics.signals.labels(op.type).inc()
    for letter in letters:
        metrics.malformed_signals.labels(letter.reason.value).inc()
