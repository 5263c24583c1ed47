"""The model's part for signals: what one call tells about the accounts that it changed. Pure."""

from __future__ import annotations

from billing.balance.conditions import EXHAUSTED, LOW, OWED_RESTORED, OWED_RESUMED, SUSPENDED, conditions
from billing.balance.records import AccountRecord
from billing.balance.signals import Kind, StoredSignal


class Outbox:
    """The signals of one call. `full`: too many are unpublished, so only flags are kept."""

    def __init__(self, usage_position: int, log_time_ms: int, *, full: bool) -> None:
        self._at = (usage_position, log_time_ms)
        self._full = full
        self.signals: list[StoredSignal] = []

    def watch(self, account: str, record: AccountRecord) -> None:
        """A record that changed and is known: its flags are brought up to date."""
        told, holds = record.flags, conditions(record)
        if holds != told:
            self._turn(account, record, told, holds)

    def watch_derived(self, account: str, record: AccountRecord, told: int) -> None:
        """A record that was derived: what holds is told, though it may have been before."""
        holds = conditions(record)
        record.flags = told & ~holds
        self.watch(account, record)

    def remind(self, account: str, record: AccountRecord) -> None:
        """What holds is told again, and what is owed."""
        holds = conditions(record)
        self._tell(account, record, holds)
        self._turn(account, record, record.flags, holds)

    def expired(self, account: str, record: AccountRecord, session: str, amount: int) -> None:
        """A hold of the account ended by its lease."""
        self._note("expired", account, record, session, amount)

    def _turn(self, account: str, record: AccountRecord, told: int, holds: int) -> None:
        restored = not holds & (LOW | EXHAUSTED) and bool(told & (LOW | EXHAUSTED | OWED_RESTORED))
        resumed = record.status == "open" and bool(told & (SUSPENDED | OWED_RESUMED))
        record.flags = holds
        if self._full:
            record.flags |= (OWED_RESTORED if restored else 0) | (OWED_RESUMED if resumed else 0)
            return
        self._tell(account, record, holds & ~told)
        if restored:
            self._note("restored", account, record)
        if resumed:
            self._note("resumed", account, record)

    def _tell(self, account: str, record: AccountRecord, flags: int) -> None:
        if flags & LOW:
            self._note("low", account, record)
        if flags & EXHAUSTED:
            self._note("exhausted", account, record)
            if record.held > 0:
                self._note("cutoff", account, record)
        if flags & SUSPENDED:
            self._note("suspended", account, record)

    def _note(self, kind: Kind, account: str, record: AccountRecord, *held: str | int) -> None:
        self.signals.append(StoredSignal.of(kind, account, record, *self._at, *held))
