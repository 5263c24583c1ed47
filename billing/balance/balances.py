"""What a reader of the balance store is told. A balance is a value or Unknown(reason); Unknown is never zero (R1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from billing.balance.records import Status
from billing.stream.record import Position
from billing.usage.ops import SessionKind


@dataclass(frozen=True, slots=True)
class Known:
    """One account at one moment, in micro-units of `currency`, with the log positions of that moment by topic
    (`usage_position` is that of usage) and the partition's log time."""

    account: str
    currency: str
    credit_micros: int
    used_micros: int
    held_micros: int
    credit_limit_micros: int
    recharge_below_micros: int | None
    excluded_micros: int
    ledger_seq: int
    last_charge_offset: int
    status: Status
    incarnation: str
    positions: Mapping[str, Position]
    usage_position: int
    log_time_ms: int

    @property
    def level_micros(self) -> int:
        """What is compared with the recharge threshold: debits that no usage caused are added back (R5), holds left
        out."""
        return self.credit_micros - self.used_micros + self.excluded_micros

    @property
    def available_micros(self) -> int:
        """Credit less what was used and what is held."""
        return self.credit_micros - self.used_micros - self.held_micros


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why there is no balance: empty, rebuilding, torn, lost, halted, deriving, correcting, gap, overflow, currency,
    unreadable, incarnation, timeline, version, functions missing, unavailable."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NoSuchAccount:
    """The store is healthy and does not have the account."""


BalanceAnswer: TypeAlias = Known | Unknown | NoSuchAccount


@dataclass(frozen=True, slots=True)
class OpenHold:
    """One open hold; `lease_end_ms` is in the partition's log time."""

    kind: SessionKind
    session: str
    amount_micros: int
    elapsed: int
    lease_end_ms: int


@dataclass(frozen=True, slots=True)
class PartitionView:
    """A partition's positions by topic, log time and sizes."""

    incarnation: str
    positions: Mapping[str, Position]
    log_time_ms: int
    expired_holds: int
    accounts: int
    open_holds: int
    unknown_accounts: int
    strays: int
