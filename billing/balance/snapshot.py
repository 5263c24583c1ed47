"""What the balance store asks of the ledger about one account: the port through which an account is derived. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from billing.balance.records import SAFE, AccountRecord, Status
from billing.usage.ops import SessionKind


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """The ledger's record of an account as of usage offset D, read in one snapshot: `used_micros` is the sum of its
    usage below D, `last_charge_offset` the last of them above zero (-1 where there is none), `settled` its
    sessions settled since the time asked for."""

    timeline: str
    currency: str
    credit_micros: int
    used_micros: int
    credit_limit_micros: int
    recharge_below_micros: int | None
    excluded_micros: int
    ledger_seq: int
    last_charge_offset: int
    status: Status
    settled: Sequence[tuple[SessionKind, str]]

    def record(self, held: int) -> AccountRecord:
        """The balance store's record of the account, with the sum of the holds that are open there. Usage without end
        does not fit for ever: beyond 2^53 credit and used are both given less by the same, so that the balance is right
        and there is room again; `used` stays above 0, because usage is what makes an account due (R5)."""
        fits = max(abs(self.credit_micros), abs(self.used_micros)) < SAFE
        left_out = 0 if fits else self.used_micros - 1
        return AccountRecord(
            currency=self.currency,
            credit=self.credit_micros - left_out,
            used=self.used_micros - left_out,
            held=held,
            credit_limit=self.credit_limit_micros,
            recharge_below=self.recharge_below_micros,
            excluded=self.excluded_micros,
            ledger_seq=self.ledger_seq,
            last_charge_offset=self.last_charge_offset,
            status=self.status,
        )


@dataclass(frozen=True, slots=True)
class LedgerLagging:
    """The ledger's usage position of the partition is below D, or it does not have the account (yet)."""


@dataclass(frozen=True, slots=True)
class LedgerUnavailable:
    """The ledger gave no answer."""

    reason: str


class LedgerView(Protocol):
    """What the owner asks of the ledger. Must not raise for a ledger that is away."""

    async def derive(
        self, account: str, partition: int, below_offset: int, settled_since_ms: int
    ) -> AccountSnapshot | LedgerLagging | LedgerUnavailable:
        """The account's record as of usage `below_offset` of its home partition."""
        ...
