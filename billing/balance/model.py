"""The balance store's semantics in plain Python: the same answers and the same state as the function library. Pure.

Tests compare it with the real functions step by step; a rebuild uses it to work out holds. A batch is worked out on
copies first, so an answer other than Applied changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field

from billing.balance.codec import BalanceOp
from billing.balance.keys import split_session_key
from billing.balance.model_entries import EntryWork
from billing.balance.model_signals import Outbox
from billing.balance.model_usage import UsageWork
from billing.balance.records import SAFE, AccountRecord, HoldRecord, UnknownRecord
from billing.balance.signals import StoredSignal
from billing.balance.snapshot import AccountSnapshot
from billing.settings import Topics
from billing.stream.record import Position
from billing.stream.sink import (
    Applied,
    ApplyAnswer,
    Batch,
    Behind,
    CatchUp,
    ClaimAnswer,
    Claimed,
    Fenced,
    Halted,
    Owner,
)
from billing.usage.ops import SessionKind, session_key

STRAYS = 10_000
BACKLOG = 100_000


@dataclass
class PartitionModel:
    """One healthy partition. `done` maps a slot (0 to 2) to its dedupe generation and sessions; `strays` an account
    to the offset after its last passed usage; `signals` are those not yet published."""

    topics: Topics
    timeline: str
    generation_ms: int
    positions: dict[str, Position]
    log_time_ms: int = 0
    floor: int = 0
    expired: int = 0
    epoch: int = 0
    nonce: str = ""
    halted: str = ""
    stray_limit: int = STRAYS
    backlog_limit: int = BACKLOG
    accounts: dict[str, AccountRecord] = field(default_factory=dict)
    holds: dict[str, HoldRecord] = field(default_factory=dict)
    unknown: dict[str, UnknownRecord] = field(default_factory=dict)
    strays: dict[str, int] = field(default_factory=dict)
    done: dict[int, tuple[int, set[str]]] = field(default_factory=dict)
    signals: list[StoredSignal] = field(default_factory=list)

    def __post_init__(self) -> None:
        """The generations that the log time sees begin empty."""
        current = self.log_time_ms // self.generation_ms
        for number in range(max(0, current - 2), current + 1):
            self.done.setdefault(number % 3, (number, set()))

    def claim(self, nonce: str) -> ClaimAnswer:
        """Raise the epoch."""
        if self.halted:
            return Halted(self.halted)
        self.epoch, self.nonce = self.epoch + 1, nonce
        return Claimed(Owner(self.epoch, nonce), dict(self.positions))

    def apply(self, batch: Batch[BalanceOp]) -> ApplyAnswer:
        """Effects and position, or neither."""
        refusal = self._refusal(batch.owner)
        if refusal is not None:
            return refusal
        if batch.from_offset != self.positions[batch.topic].offset:
            return Behind(self.positions[batch.topic])
        usage = batch.topic == self.topics.usage
        answer = self._usage(batch) if usage else self._entries(batch)
        if isinstance(answer, Applied):
            self.positions[batch.topic] = Position(batch.to_offset, batch.fingerprint)
        return answer

    def expire(self, owner: Owner, limit: int) -> list[str] | Halted | Fenced:
        """End at most `limit` leases that log time has reached, oldest first; the sessions' keys. None while too many
        signals are unpublished."""
        refusal = self._refusal(owner)
        if refusal is not None:
            return refusal
        if self._full():
            return []
        due = [key for key, hold in self.holds.items() if hold.lease_end_ms <= self.log_time_ms]
        ended = sorted(due, key=lambda key: (self.holds[key].lease_end_ms, key))[:limit]
        outbox = self._outbox()
        self._release(ended, outbox)
        self.signals += outbox.signals
        self.expired += len(ended)
        return ended

    def derive(
        self,
        owner: Owner,
        account: str,
        below_offset: int,
        snapshot: AccountSnapshot,
        passed: Mapping[str, HoldRecord],
    ) -> str | Halted | Fenced:
        """Put the ledger's record in the place of "unknown", with the holds that were passed (by session key): derived,
        moved, lagging, timeline or overflow."""
        refusal = self._refusal(owner)
        if refusal is not None:
            return refusal
        unknown = self.unknown.get(account)
        if unknown is None or snapshot.ledger_seq < unknown.seen:
            return "moved" if unknown is None else "lagging"
        if snapshot.timeline != self.timeline:
            return "timeline"
        keys = dict.fromkeys(session_key(kind, account, session) for kind, session in snapshot.settled)
        self._release([key for key in keys if key in self.holds])
        self._settle(self.log_time_ms, keys)
        if unknown.offset != below_offset:
            return "moved"
        old = self.accounts.get(account)
        record = snapshot.record(old.held if old is not None else 0)
        holds = self._brought_back(record, passed)
        if holds is None:
            return "overflow"
        del self.unknown[account]
        self.accounts[account] = record
        self.holds.update(holds)
        outbox = self._outbox()
        outbox.watch_derived(account, record, old.flags if old is not None else 0)
        self.signals += outbox.signals
        return "derived"

    def remind(self, owner: Owner) -> Halted | Fenced | None:
        """Tell again what holds of every account that is known; nothing while too many signals are unpublished."""
        refusal = self._refusal(owner)
        if refusal is not None or self._full():
            return refusal
        outbox = self._outbox()
        for account, record in self.accounts.items():
            if record.flags and account not in self.unknown:
                outbox.remind(account, record)
        self.signals += outbox.signals
        return None

    def alerted(self) -> set[str]:
        """Accounts of which something is to be told again."""
        return {account for account, record in self.accounts.items() if record.flags}

    def held_by_account(self) -> dict[str, int]:
        """The sum of open holds of each account that has any."""
        held: dict[str, int] = {}
        for key, hold in self.holds.items():
            account = split_session_key(key)[1]
            held[account] = held.get(account, 0) + hold.amount
        return held

    def open_holds(self) -> dict[tuple[SessionKind, str, str], HoldRecord]:
        """Open holds by (kind, account, session)."""
        return {split_session_key(key): hold for key, hold in self.holds.items()}

    def _refusal(self, owner: Owner) -> Halted | Fenced | None:
        if self.halted:
            return Halted(self.halted)
        return None if owner == Owner(self.epoch, self.nonce) else Fenced()

    def _usage(self, batch: Batch[BalanceOp]) -> Applied | CatchUp:
        log_time_ms = max(self.log_time_ms, batch.log_time_ms)
        work = UsageWork(self.accounts, self.holds, self.unknown, self._settled_at(log_time_ms))
        missing = work.run(batch.ops, batch.caught_up)
        if missing is not None:
            return CatchUp(self.topics.entries if missing == "entries" else self.topics.tariffs)
        self.log_time_ms = log_time_ms
        self._settle(log_time_ms, work.done)
        for key, hold in work.changed_holds.items():
            if hold is None:
                self.holds.pop(key, None)
            else:
                self.holds[key] = hold
        self._add_strays(work.strays)
        self.unknown.update(work.changed_unknown)
        self._update(work.changed_accounts, self._outbox(batch.to_offset))
        return Applied(batch.to_offset)

    def _entries(self, batch: Batch[BalanceOp]) -> Applied | Halted:
        usage_offset = self.positions[self.topics.usage].offset
        work = EntryWork(self.accounts, self.unknown, self.strays, usage_offset, self.floor)
        foreign = work.run(batch.ops, self.timeline)
        if foreign is not None:
            self.halted = f"timeline: the store has {self.timeline}, an entry {foreign}"
            return Halted(self.halted)
        for account in work.remembered:
            del self.strays[account]
        self.unknown.update(work.changed_unknown)
        self._update(work.changed_accounts, self._outbox())
        return Applied(batch.to_offset)

    def _brought_back(
        self, record: AccountRecord, passed: Mapping[str, HoldRecord]
    ) -> dict[str, HoldRecord] | None:
        """What to place of holds that were passed, counted in `record`; None where that leaves its bounds."""
        holds: dict[str, HoldRecord] = {}
        settled = self._settled_at(self.log_time_ms)
        for key, hold in passed.items():
            old = self.holds.get(key, HoldRecord(0, -1, 0))
            if hold.elapsed >= old.elapsed and not any(key in sessions for sessions in settled):
                amount = old.amount if hold.elapsed == old.elapsed else hold.amount
                holds[key] = HoldRecord(amount, hold.elapsed, max(hold.lease_end_ms, old.lease_end_ms))
                record.held += amount - old.amount
                if record.held >= SAFE:
                    return None
        return holds

    def _full(self) -> bool:
        return len(self.signals) >= self.backlog_limit

    def _outbox(self, usage_position: int | None = None) -> Outbox:
        position = self.positions[self.topics.usage].offset if usage_position is None else usage_position
        return Outbox(position, self.log_time_ms, full=self._full())

    def _update(self, changed: dict[str, AccountRecord], outbox: Outbox) -> None:
        for account, record in changed.items():
            if account not in self.unknown:
                outbox.watch(account, record)
        self.accounts.update(changed)
        self.signals += outbox.signals

    def _settled_at(self, log_time_ms: int) -> list[set[str]]:
        current = log_time_ms // self.generation_ms
        return [sessions for number, sessions in self.done.values() if current - 2 <= number <= current]

    def _settle(self, log_time_ms: int, keys: Iterable[str]) -> None:
        fresh, current = set(keys), log_time_ms // self.generation_ms
        if not fresh:
            return
        number, sessions = self.done.get(current % 3, (-1, set()))
        self.done[current % 3] = (current, sessions | fresh if number == current else fresh)

    def _add_strays(self, strays: dict[str, int]) -> None:
        self.strays.update(strays)
        excess = len(self.strays) - self.stray_limit
        if strays and excess > 0:
            for account in sorted(self.strays, key=self.strays.__getitem__)[:excess]:
                self.floor = max(self.floor, self.strays.pop(account))

    def _release(self, keys: Iterable[str], outbox: Outbox | None = None) -> None:
        """With an outbox the holds have expired: that, and what it changes, is told of accounts that are known."""
        told: dict[str, list[tuple[str, int]]] = {}
        for key in keys:
            hold = self.holds.pop(key)
            account = split_session_key(key)[1]
            record = self.accounts.get(account)
            if record is not None:
                record = self.accounts[account] = copy(record)
                record.held -= hold.amount
                told.setdefault(account, []).append((key, hold.amount))
        for account, ended in told.items():
            if outbox is not None and account not in self.unknown:
                for key, amount in ended:
                    outbox.expired(account, self.accounts[account], key, amount)
                outbox.watch(account, self.accounts[account])
