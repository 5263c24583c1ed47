"""The model's part for the ledger's entries: one batch, worked out on copies. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy

from billing.balance.codec import BalanceOp
from billing.balance.records import NEVER_CHARGED, SAFE, AccountRecord, UnknownRecord
from schemas.ledger import AccountChanged, AccountOpened, DebitsAcknowledged, EntryPosted, LedgerEntry, ViewCorrected


class EntryWork:
    """One batch of entries. After `run`, what it changes, and the strays that are no longer `remembered`."""

    def __init__(
        self,
        accounts: Mapping[str, AccountRecord],
        unknown: Mapping[str, UnknownRecord],
        strays: Mapping[str, int],
        usage_offset: int,
        floor: int,
    ) -> None:
        self._accounts, self._unknown, self._strays = accounts, unknown, strays
        self._usage_offset, self._floor = usage_offset, floor
        self.changed_accounts: dict[str, AccountRecord] = {}
        self.changed_unknown: dict[str, UnknownRecord] = {}
        self.remembered: set[str] = set()

    def run(self, ops: Iterable[BalanceOp], timeline: str) -> str | None:
        """Take the entries in order. Returns another timeline that one of them has, then nothing counts."""
        entries = [op for op in ops if isinstance(op, LedgerEntry)]
        for entry in entries:
            if entry.timeline != timeline:
                return entry.timeline
        for entry in entries:
            self._take(entry)
        return None

    def _take(self, entry: LedgerEntry) -> None:
        account, seq = entry.account, entry.ledger_seq
        unknown = self.changed_unknown.get(account) or self._unknown.get(account)
        record = self.changed_accounts.get(account) or self._accounts.get(account)
        if unknown is not None:
            if seq > unknown.seen:
                self.changed_unknown[account] = UnknownRecord(unknown.reason, unknown.offset, seq, unknown.first)
        elif record is None:
            if isinstance(entry, AccountOpened):
                self._open(entry)
            else:
                self._lose(account, "gap", seq)
        elif seq > record.ledger_seq + 1:
            self._lose(account, "gap", seq)
        elif seq == record.ledger_seq + 1:
            self._next(copy(record), entry)

    def _open(self, entry: AccountOpened) -> None:
        account = entry.account
        stray = self._strays.get(account, 0)
        if account in self._strays:
            self.remembered.add(account)
        if max(stray, self._floor) > entry.usage_position:
            passed_to, opened_at = max(stray, self._floor), entry.usage_position
            self.changed_unknown[account] = UnknownRecord("deriving", passed_to, entry.ledger_seq, opened_at)
            return
        self.changed_accounts[account] = AccountRecord(
            currency=entry.currency,
            credit=entry.credit_micros,
            used=0,
            held=0,
            credit_limit=entry.credit_limit_micros,
            recharge_below=entry.recharge_below_micros,
            excluded=0,
            ledger_seq=entry.ledger_seq,
            last_charge_offset=NEVER_CHARGED,
            status=entry.status,
        )

    def _next(self, record: AccountRecord, entry: LedgerEntry) -> None:
        if isinstance(entry, EntryPosted):
            credit = record.credit + entry.amount_micros
            excluded = record.excluded + max(0, -entry.amount_micros)
            if record.currency != entry.currency:
                return self._lose(entry.account, "currency", entry.ledger_seq)
            if abs(credit) >= SAFE or excluded >= SAFE:
                return self._lose(entry.account, "overflow", entry.ledger_seq)
            record.credit, record.excluded = credit, excluded
        elif isinstance(entry, AccountChanged):
            record.credit_limit, record.status = entry.credit_limit_micros, entry.status
            record.recharge_below = entry.recharge_below_micros
        elif isinstance(entry, DebitsAcknowledged):
            record.excluded = 0
        elif isinstance(entry, ViewCorrected):
            return self._lose(entry.account, "correcting", entry.ledger_seq)
        record.ledger_seq = entry.ledger_seq
        self.changed_accounts[entry.account] = record

    def _lose(self, account: str, reason: str, seen: int) -> None:
        self.changed_unknown[account] = UnknownRecord(reason, self._usage_offset, seen, self._usage_offset)
