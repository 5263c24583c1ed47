"""An explained balance as JSON: amounts in micro-units, null where unknown. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from billing.balance.balances import Known, NoSuchAccount, Unknown
from billing.cli.explain_verdict import verdict
from billing.reconcile.compare import Comparison, Different, Equal
from billing.reconcile.explain import Away, LedgerAnswer, LedgerView, StoreView


def fields(account: str, ledger: LedgerAnswer, store: StoreView, comparison: Comparison | None) -> dict[str, Any]:
    """Both books and whether they agree: true, false, or null where that cannot be said."""
    return {
        "account": account,
        "agree": {Equal: True, Different: False}.get(type(comparison)),
        "verdict": verdict(ledger, store, comparison),
        "ledger": _ledger_fields(ledger),
        "redis": _store_fields(store),
    }


def _ledger_fields(ledger: LedgerAnswer) -> dict[str, Any] | None:
    if not isinstance(ledger, LedgerView):
        return {"status": "away", "reason": ledger.why} if isinstance(ledger, Away) else None
    account = ledger.account
    return {
        "status": "known",
        "currency": account.currency,
        "account_status": account.status,
        "credit_micros": account.credit_micros,
        "used_micros": account.used_micros,
        "balance_micros": account.balance_micros,
        "excluded_micros": account.excluded_micros,
        "ledger_seq": account.ledger_seq,
        "last_charged_offset": account.last_charged_offset,
        "usage_position": ledger.usage_position,
        "waiting_entries": ledger.waiting_entries,
        "frozen_reason": ledger.frozen_reason,
        "halted": ledger.halted,
        "entries": [asdict(entry) for entry in ledger.entries],
        "earlier_entries": ledger.earlier_entries,
        "earlier_micros": ledger.earlier_micros,
        "usage": [asdict(total) for total in ledger.usage],
    }


def _store_fields(store: StoreView) -> dict[str, Any]:
    balance = store.balance
    if not isinstance(balance, Known):
        why = "not_yet_shown" if isinstance(balance, NoSuchAccount) else balance.reason
        nothing = dict.fromkeys(("credit_micros", "used_micros", "held_micros", "available_micros", "holds"))
        return {"status": "unknown", "reason": why, **nothing}
    return {
        "status": "known",
        "reason": None,
        "currency": balance.currency,
        "credit_micros": balance.credit_micros,
        "used_micros": balance.used_micros,
        "held_micros": balance.held_micros,
        "available_micros": balance.available_micros,
        "excluded_micros": balance.excluded_micros,
        "recharge_level_micros": balance.level_micros,
        "ledger_seq": balance.ledger_seq,
        "last_charged_offset": None if balance.last_charge_offset < 0 else balance.last_charge_offset,
        "usage_position": balance.usage_position,
        "log_time_ms": balance.log_time_ms,
        "incarnation": balance.incarnation,
        "holds": None if isinstance(store.holds, Unknown) else [asdict(hold) for hold in store.holds],
    }
