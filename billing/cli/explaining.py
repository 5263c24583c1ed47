"""Recharges and evaluations as they are printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billing.money import format_micros
from billing.recharge.intents import StoredIntent
from billing.recharge.records import Evaluation

_OUTCOMES = {
    "open": "recharge opened",
    "proof": "proof passed",
    "final": "last look passed",
    "suspend": "suspended",
    "resume": "resumed",
}


def intent_fields(stored: StoredIntent, *, brief: bool) -> dict[str, Any]:
    """A recharge; brief: one line of a table, its amount as a decimal."""
    intent = stored.intent
    if brief:
        return {
            "recharge": stored.id,
            "account": stored.account,
            "episode": stored.episode,
            "state": intent.state.value,
            "amount": f"{format_micros(stored.amount_micros, stored.currency)} {stored.currency}",
            "payment": intent.payment_id,
            "created": f"{stored.created_at:%Y-%m-%d %H:%M:%S}",
            "reason": intent.reason,
        }
    return {
        "id": stored.id,
        "account": stored.account,
        "episode": stored.episode,
        "timeline": stored.timeline,
        "state": intent.state.value,
        "open": stored.open,
        "currency": stored.currency,
        "amount_micros": stored.amount_micros,
        "amount_minor": stored.amount_minor,
        "customer": stored.customer,
        "payment_method": stored.payment_method,
        "payment_id": intent.payment_id,
        "received_minor": intent.received_minor,
        "credit_seq": intent.credit_seq,
        "create_attempt": intent.create_attempt,
        "confirm_attempt": intent.confirm_attempt,
        "reason": intent.reason,
        "late": stored.late,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
        "closed_at": stored.closed_at,
    }


def evaluation_fields(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation with every check and what it saw."""
    return {
        "id": evaluation.id,
        "account": evaluation.account,
        "recharge": evaluation.intent,
        "stage": evaluation.stage,
        "refusal": evaluation.refusal,
        "times": evaluation.times,
        "first_at": evaluation.first_at,
        "last_at": evaluation.last_at,
        "timeline": evaluation.timeline,
        "checks": evaluation.checks,
    }


def evaluation_lines(evaluation: Evaluation, currency: str) -> Iterator[str]:
    """The same for people: what came of it, then a line per check."""
    outcome = f"refused: {evaluation.refusal}" if evaluation.refusal else _OUTCOMES[evaluation.stage]
    which = f"  recharge {evaluation.intent}" if evaluation.intent is not None else ""
    times = f"  ({evaluation.times} times since {evaluation.first_at:%H:%M:%S})" if evaluation.times > 1 else ""
    moment = f"{evaluation.last_at:%Y-%m-%d %H:%M:%S}"
    yield f"{moment}  {evaluation.account}{which}  {evaluation.stage}: {outcome}{times}"
    for check in evaluation.checks:
        seen = ", ".join(f"{_name(name)} {_value(name, value, currency)}" for name, value in check["seen"].items())
        yield f"    {'NO ' if check['refusal'] else 'yes'}  {check['check']:<10}  {seen}"


def _name(name: str) -> str:
    return name.removesuffix("_micros").replace("_", " ")


def _value(name: str, value: Any, currency: str) -> str:
    if value is None:
        return "-"
    return format_micros(value, currency) if name.endswith("_micros") and isinstance(value, int) else str(value)
