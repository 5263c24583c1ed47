"""Records of `ledger.entries` as operations of the balance store. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from billing.stream.record import Record
from billing.stream.sink import Interpretation
from billing.usage.partitioner import home_partition
from schemas.common import MalformedMessage
from schemas.ledger import AccountOpened, LedgerEntry, decode_entry


class Malformed(msgspec.Struct, frozen=True):
    """A record that the relay cannot have written: the partition halts there, because a balance may depend on it."""

    offset: int
    detail: str


EntryOp: TypeAlias = LedgerEntry | Malformed


class EntriesInterpreter:
    """Records of `ledger.entries` to operations. A malformed record is the only operation of its batch, so that what
    came before it is applied. With `partitions`, entries of accounts whose home is another of them mean nothing: a
    relay that slept through a migration published again what the account's new home has (S16)."""

    def __init__(self, partitions: int | None = None) -> None:
        self._partitions = partitions

    def interpret(self, records: Sequence[Record], before: Record | None = None) -> Interpretation[EntryOp]:
        """One operation per record, none of an entry that is not at home."""
        ops: list[EntryOp] = []
        for taken, record in enumerate(records):
            op = _interpret(record)
            if isinstance(op, Malformed):
                return Interpretation(ops, taken) if taken or before is not None else Interpretation([op], 1, ends=True)
            if self._partitions is None or home_partition(op.account, self._partitions) == record.partition:
                ops.append(op)
        return Interpretation(ops, len(records))


def _interpret(record: Record) -> EntryOp:
    try:
        entry = decode_entry(record.value)
    except MalformedMessage as error:
        return Malformed(record.offset, str(error))
    if record.key != entry.account.encode():
        return Malformed(record.offset, "the record's key is not the account")
    if isinstance(entry, AccountOpened) and (entry.ledger_seq != 1 or entry.home_partition != record.partition):
        return Malformed(record.offset, "an opening entry has ledger_seq 1 and stands in its home partition")
    return entry
