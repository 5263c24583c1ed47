"""Which holds are open at a place in the log, worked out from the log. Pure.

The rules are those of the balance store (`billing.balance.model` is their plain form, and tests compare the two). What
the store knows beyond these records, that a session was settled earlier, the caller asks the ledger for at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from billing.balance.records import HoldRecord
from billing.usage.ops import Charge, Hold, SessionKind, UsageOp

Session: TypeAlias = tuple[SessionKind, str, str]
"""(kind, account, session)"""

_SWEEP = 100_000  # records between two removals of what has lapsed: memory is bounded by the holds of one lease


class OpenHolds:
    """Fed with every record of a partition in order. A lease ends when log time reaches it, before the next record."""

    def __init__(self) -> None:
        self._holds: dict[Session, HoldRecord] = {}
        self._since_sweep = 0
        self.log_time_ms = 0

    def take(self, op: UsageOp | None, timestamp_ms: int) -> None:
        """The verdict on one record, None when it means nothing, and the record's timestamp."""
        match op:
            case Hold():
                self._place(op)
            case Charge():
                self._holds.pop((op.kind, op.account, op.session), None)
        self.log_time_ms = max(self.log_time_ms, timestamp_ms)
        self._since_sweep += 1
        if self._since_sweep >= _SWEEP:
            self._since_sweep = 0
            self._holds = dict(self.open_at(self.log_time_ms))

    def open_at(self, log_time_ms: int) -> Mapping[Session, HoldRecord]:
        """The holds whose lease ends after `log_time_ms`."""
        return {session: hold for session, hold in self._holds.items() if hold.lease_end_ms > log_time_ms}

    def _place(self, op: Hold) -> None:
        session = (op.kind, op.account, op.session)
        amount, lease_end_ms = op.amount_micros, op.log_time_ms + op.lease_ms
        old = self._holds.get(session)
        if old is not None and old.lease_end_ms > self.log_time_ms:
            if op.elapsed < old.elapsed:
                return
            if op.elapsed == old.elapsed:
                amount = old.amount
            lease_end_ms = max(lease_end_ms, old.lease_end_ms)
        self._holds[session] = HoldRecord(amount, op.elapsed, lease_end_ms)
