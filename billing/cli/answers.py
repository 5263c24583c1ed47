"""The ledger's answers, for people: refusals as one line, accounts as fields."""

from __future__ import annotations

from collections.abc import Mapping
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
    if conflict.field.endswith("_micros"):
        stored, given = (None if value is None else format_micros(value) for value in (stored, given))
    what = conflict.field.removesuffix("_micros").replace("_", " ")
    return f"account {conflict.account} exists with another {what}: {_value(stored)}, not {_value(given)}"


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def for_people(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of one thing in `currency`: amounts as decimals, under names without their unit."""
    currency = fields["currency"]
    return {
        name.removesuffix("_micros"): format_micros(value, currency)
        if name.endswith("_micros") and value is not None
        else value
        for name, value in fields.items()
    }


def in_words(detail: Mapping[str, Any], currency: str | None) -> dict[str, Any]:
    """A detail that was stored as JSON: amounts as decimals of `currency`, also in what is nested."""
    shown: dict[str, Any] = {}
    for name, value in detail.items():
        if name.endswith("_micros") and isinstance(value, int):
            shown[name.removesuffix("_micros")] = f"{format_micros(value, currency)} {currency or ''}".rstrip()
        elif isinstance(value, Mapping):
            shown[name] = in_words(value, currency)
        else:
            shown[name] = value
    return shown


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
