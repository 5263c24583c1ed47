"""The ledger's answers, for people: refusals as one line, accounts as fields."""

from __future__ import annotations

from typing import Any

from billing.ledger.accounts import Account
from billing.ledger.terms import Closed, Conflict, CurrencyMismatch, Invalid, NoSuchAccount, UnknownPlan
from billing.money import format_micros

LedgerRefusal = Closed | Conflict | CurrencyMismatch | Invalid | NoSuchAccount | UnknownPlan


def explain_refusal(refusal: LedgerRefusal) -> str:
    """One line."""
    match refusal:
        case NoSuchAccount(account=account):
            return f"there is no account {account!r}"
        case Closed(account=account):
            return f"account {account} is closed"
        case UnknownPlan(plan=plan):
            return f"plan {plan!r} has no tariff; load one with `billing tariff load`"
        case CurrencyMismatch(plan=plan, plan_currency=theirs, account_currency=ours):
            return f"plan {plan} is in {theirs}, the account in {ours}"
        case Conflict():
            return _explain_conflict(refusal)
        case Invalid(field=field, problem=problem):
            return f"{field.removesuffix('_micros')} {problem}"


def _explain_conflict(conflict: Conflict) -> str:
    stored, given = conflict.stored, conflict.given
    if conflict.field == "key":
        return f"key {given!r} is taken by {stored}, which asks for something else (account, amount, reason, …)"
    return f"account {conflict.account} exists with another {conflict.field}: {stored!r}, not {given!r}"


def account_fields(account: Account, *, brief: bool = False) -> dict[str, Any]:
    """An account's fields as they are printed; brief: one line of a table, amounts as decimals."""
    if brief:
        return {
            "id": account.id,
            "currency": account.currency,
            "plan": account.plan,
            "status": account.status,
            "balance": format_micros(account.balance_micros, account.currency),
            "ledger_seq": account.ledger_seq,
        }
    return {
        "id": account.id,
        "currency": account.currency,
        "plan": account.plan,
        "status": account.status,
        "balance_micros": account.balance_micros,
        "credit_micros": account.credit_micros,
        "used_micros": account.used_micros,
        "credit_limit_micros": account.credit_limit_micros,
        "recharge_below_micros": account.recharge_below_micros,
        "recharge_by_micros": account.recharge_by_micros,
        "daily_cap_micros": account.daily_cap_micros,
        "customer": account.customer,
        "payment_method": account.payment_method,
        "home_partition": account.home_partition,
        "usage_position": account.usage_position,
        "ledger_seq": account.ledger_seq,
        "last_charged_offset": account.last_charged_offset,
        "opened_at": account.opened_at.isoformat(),
    }
