"""Signals as the functions write them: packed entries of a partition's stream. Pure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from billing.balance.conditions import available_micros, level_micros
from billing.balance.keys import split_session_key
from billing.balance.records import AccountRecord
from schemas.signals import (
    AccountResumed,
    AccountSuspended,
    BalanceExhausted,
    BalanceLow,
    BalanceRestored,
    HoldExpired,
    SessionCutoff,
    SessionName,
    Signal,
)

Kind: TypeAlias = Literal["low", "exhausted", "restored", "cutoff", "expired", "suspended", "resumed"]
KINDS: tuple[Kind, ...] = ("low", "exhausted", "restored", "cutoff", "expired", "suspended", "resumed")

MOST_SESSIONS = 100
"""What one cutoff names; of more it says that there are more."""

_BALANCE: dict[str, type[BalanceLow | BalanceExhausted | BalanceRestored]] = {
    "low": BalanceLow,
    "exhausted": BalanceExhausted,
    "restored": BalanceRestored,
}


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    code: int
    account: str
    currency: str
    level: int
    available: int
    below: int | bool
    limit: int
    usage_position: int
    log_time_ms: int
    session: str = ""
    amount: int = 0


_decoder = msgspec.msgpack.Decoder(_Packed)


class StoredSignal(NamedTuple):
    """One signal before it is published: the account as it was in that call, amounts in micro-units. `session` (a
    session key) and `amount_micros` are those of an expired hold."""

    kind: Kind
    account: str
    currency: str
    level_micros: int
    available_micros: int
    recharge_below_micros: int | None
    credit_limit_micros: int
    usage_position: int
    log_time_ms: int
    session: str = ""
    amount_micros: int = 0

    @staticmethod
    def of(
        kind: Kind, account: str, record: AccountRecord, usage_position: int, log_time_ms: int, *held: str | int
    ) -> StoredSignal:
        """The signal that a function would write of this record."""
        return StoredSignal(
            kind,
            account,
            record.currency,
            level_micros(record),
            available_micros(record),
            record.recharge_below,
            record.credit_limit,
            usage_position,
            log_time_ms,
            *held,  # type: ignore[arg-type]  # session and amount, or nothing
        )

    @staticmethod
    def unpack(packed: bytes) -> StoredSignal:
        """The signal in `packed`; raises msgspec.DecodeError for anything else."""
        found = _decoder.decode(packed)
        below = None if found.below is False else int(found.below)
        return StoredSignal(
            KINDS[found.code - 1],
            found.account,
            found.currency,
            found.level,
            found.available,
            below,
            found.limit,
            found.usage_position,
            found.log_time_ms,
            found.session,
            found.amount,
        )


def published(
    stored: StoredSignal, incarnation: int, timeline: str, sessions: list[SessionName]
) -> Signal | None:
    """The signal as it is published. `sessions` are those that are open of the account, for a cutoff; None when
    there is none any more."""
    common: dict[str, Any] = {
        "account": stored.account,
        "currency": stored.currency,
        "incarnation": incarnation,
        "timeline": timeline,
        "usage_position": stored.usage_position,
        "log_time_ms": stored.log_time_ms,
    }
    match stored.kind:
        case "cutoff":
            more = len(sessions) > MOST_SESSIONS
            return SessionCutoff(**common, sessions=sessions[:MOST_SESSIONS], more=more) if sessions else None
        case "expired":
            kind, _, session = split_session_key(stored.session)
            return HoldExpired(**common, kind=kind, session=session, amount_micros=stored.amount_micros)
        case "suspended":
            return AccountSuspended(**common)
        case "resumed":
            return AccountResumed(**common)
        case _:
            return _BALANCE[stored.kind](
                **common,
                level_micros=stored.level_micros,
                available_micros=stored.available_micros,
                recharge_below_micros=stored.recharge_below_micros,
                credit_limit_micros=stored.credit_limit_micros,
            )
