"""The model's part for usage: holds and charges of one batch, worked out on copies. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from copy import copy
from typing import Literal

from billing.balance.codec import BalanceOp
from billing.balance.records import SAFE, AccountRecord, HoldRecord, UnknownRecord
from billing.usage.ops import Charge, Hold, Stray, session_key


class UsageWork:
    """One batch of usage. After `run`, what it changes: accounts, holds (None is released), unknown accounts,
    `strays` (account to offset + 1) and the sessions `done`."""

    def __init__(
        self,
        accounts: Mapping[str, AccountRecord],
        holds: Mapping[str, HoldRecord],
        unknown: Mapping[str, UnknownRecord],
        settled: Sequence[Set[str]],
    ) -> None:
        self._accounts, self._holds, self._unknown, self._settled = accounts, holds, unknown, settled
        self.changed_accounts: dict[str, AccountRecord] = {}
        self.changed_holds: dict[str, HoldRecord | None] = {}
        self.changed_unknown: dict[str, UnknownRecord] = {}
        self.strays: dict[str, int] = {}
        self.done: dict[str, None] = {}

    def run(self, ops: Iterable[BalanceOp], caught_up: bool) -> Literal["entries", "tariffs"] | None:
        """Take the operations in order. Returns the topic that has to be caught up first, then nothing counts."""
        for op in ops:
            if not isinstance(op, Hold | Charge | Stray):
                continue
            missing = self._take(op, caught_up)
            if missing is not None:
                return missing
        return None

    def _take(self, op: Hold | Charge | Stray, caught_up: bool) -> Literal["entries", "tariffs"] | None:
        unknown = self.changed_unknown.get(op.account) or self._unknown.get(op.account)
        if unknown is not None:
            self.changed_unknown[op.account] = UnknownRecord(
                unknown.reason, op.offset + 1, unknown.seen, unknown.first
            )
        elif op.account not in self._accounts:
            if not isinstance(op, Stray) and not caught_up:
                return "entries"
            self.strays[op.account] = op.offset + 1
        elif isinstance(op, Charge):
            self._charge(op)
        elif isinstance(op, Hold):
            self._hold(op)
        elif caught_up:
            self._lose(op.account, "deriving", op.offset)
        else:
            return "tariffs"
        return None

    def _charge(self, op: Charge) -> None:
        key = session_key(op.kind, op.account, op.session)
        if self._is_settled(key):
            return
        record = self._record(op.account)
        if record.currency != op.currency:
            return self._lose(op.account, "currency", op.offset)
        if record.used + op.amount_micros >= SAFE:
            return self._lose(op.account, "overflow", op.offset)
        record.used += op.amount_micros
        if op.amount_micros > 0:
            record.last_charge_offset = op.offset
        hold = self._hold_of(key)
        if hold is not None:
            record.held -= hold.amount
            self.changed_holds[key] = None
        if op.amount_micros > 0 or hold is not None:
            self.changed_accounts[op.account] = record
        self.done[key] = None

    def _hold(self, op: Hold) -> None:
        key = session_key(op.kind, op.account, op.session)
        old = self._hold_of(key)
        if self._is_settled(key) or (old is not None and op.elapsed < old.elapsed):
            return
        amount, lease_end_ms, before = op.amount_micros, op.log_time_ms + op.lease_ms, 0
        if old is not None:
            before = old.amount
            amount = old.amount if op.elapsed == old.elapsed else amount
            lease_end_ms = max(lease_end_ms, old.lease_end_ms)
        record = self._record(op.account)
        if record.held + amount - before >= SAFE:
            return self._lose(op.account, "overflow", op.offset)
        record.held += amount - before
        if amount != before:  # else nothing of the account is written, nor told that was owed
            self.changed_accounts[op.account] = record
        self.changed_holds[key] = HoldRecord(amount, op.elapsed, lease_end_ms)

    def _lose(self, account: str, reason: str, offset: int) -> None:
        seen = self._record(account).ledger_seq
        self.changed_unknown[account] = UnknownRecord(reason, offset + 1, seen, offset)

    def _record(self, account: str) -> AccountRecord:
        return self.changed_accounts.get(account) or copy(self._accounts[account])

    def _hold_of(self, key: str) -> HoldRecord | None:
        return self.changed_holds[key] if key in self.changed_holds else self._holds.get(key)

    def _is_settled(self, key: str) -> bool:
        return key in self.done or any(key in sessions for sessions in self._settled)
