"""What a confirmation does to a payment intent. A payment succeeds once: the state says so, the database holds it."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from billing.lab.sandbox.call import Call, fetch, metadata
from billing.lab.sandbox.cards import AUTHENTICATION, CARDS, GENERIC, Refusal
from billing.lab.sandbox.customers import payment_method
from billing.lab.sandbox.errors import INVALID_REQUEST, Answer, answer, error
from billing.lab.sandbox.store import new_id

CONFIRMABLE = frozenset({"requires_payment_method", "requires_confirmation", "requires_action"})


def confirm(call: Call, row: sqlite3.Row, method: str | None, *, off_session: bool) -> Answer:
    """Charge `method`, or say why not. A decline is an answer (402), its traces stay."""
    if row["status"] not in CONFIRMABLE:
        return unexpected_state(
            row, f"You cannot confirm this PaymentIntent because it has a status of {row['status']}."
        )
    if method is None:
        return unexpected_state(row, "You cannot confirm this PaymentIntent because it's missing a payment method.")
    found = fetch(call, "payment_methods", "PaymentMethod", method, "payment_method")
    card = CARDS[found["token"]]
    authenticates = card.authenticates == "always" or (card.authenticates == "unsaved" and not found["customer"])
    if call.fault is not None and call.fault.kind == "decline":
        return _decline(call, row, found, GENERIC)
    if authenticates and not off_session:
        call.db.execute(
            "UPDATE payment_intents SET status = 'requires_action', payment_method = ? WHERE id = ?",
            (method, row["id"]),
        )
        return answer(200, _fresh(call, row))
    refusal = AUTHENTICATION if authenticates else card.refusal
    return _succeed(call, row, method) if refusal is None else _decline(call, row, found, refusal)


def _succeed(call: Call, row: sqlite3.Row, method: str) -> Answer:
    charge = _charge(call, row, method, "succeeded", None)
    call.db.execute(
        "UPDATE payment_intents SET status = 'succeeded', amount_received = amount, payment_method = ?,"
        " latest_charge = ?, last_payment_error = NULL WHERE id = ?",
        (method, charge, row["id"]),
    )
    return answer(200, _fresh(call, row))


def _decline(call: Call, row: sqlite3.Row, method: sqlite3.Row, refusal: Refusal) -> Answer:
    charge = _charge(call, row, method["id"], "failed", refusal.code)
    why = {
        "charge": charge,
        "code": refusal.code,
        "decline_code": refusal.decline_code,
        "message": refusal.message,
        "payment_method": payment_method(method),
        "type": "card_error",
    }
    why = {name: value for name, value in why.items() if value is not None}
    call.db.execute(
        "UPDATE payment_intents SET status = 'requires_payment_method', payment_method = NULL,"
        " latest_charge = ?, last_payment_error = ? WHERE id = ?",
        (charge, msgspec.json.encode(why).decode(), row["id"]),
    )
    return answer(402, {"error": {**why, "payment_intent": _fresh(call, row)}})


def _charge(call: Call, row: sqlite3.Row, method: str, status: str, failure_code: str | None) -> str:
    identifier = new_id("ch")
    call.db.execute(
        "INSERT INTO charges"
        " (id, created, payment_intent, customer, payment_method, amount, currency, status, failure_code)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(identifier, call.now, row["id"], row["customer"], method),
            *(row["amount"], row["currency"], status, failure_code),
        ),
    )
    return identifier


def unexpected_state(row: sqlite3.Row, message: str) -> Answer:
    """400 with the payment as it is. Its endpoint has begun, so it is saved under the key."""
    code = "payment_intent_unexpected_state"
    return error(400, INVALID_REQUEST, message, code=code, payment_intent=intent_json(row))


def intent_json(row: sqlite3.Row) -> dict[str, Any]:
    """A payment intent as JSON."""
    why = row["last_payment_error"]
    return {
        "id": row["id"],
        "object": "payment_intent",
        "amount": row["amount"],
        "amount_capturable": 0,
        "amount_received": row["amount_received"],
        "canceled_at": row["canceled_at"],
        "cancellation_reason": row["cancellation_reason"],
        "capture_method": "automatic",
        "confirmation_method": "automatic",
        "created": row["created"],
        "currency": row["currency"],
        "customer": row["customer"],
        "description": row["description"],
        "last_payment_error": msgspec.Raw(why.encode()) if why else None,
        "latest_charge": row["latest_charge"],
        "livemode": False,
        "metadata": metadata(row),
        "next_action": {"type": "use_stripe_sdk"} if row["status"] == "requires_action" else None,
        "payment_method": row["payment_method"],
        "payment_method_types": ["card"],
        "status": row["status"],
    }


def charge_json(row: sqlite3.Row) -> dict[str, Any]:
    """A charge as JSON."""
    paid = row["status"] == "succeeded"
    return {
        "id": row["id"],
        "object": "charge",
        "amount": row["amount"],
        "amount_captured": row["amount"] if paid else 0,
        "captured": paid,
        "created": row["created"],
        "currency": row["currency"],
        "customer": row["customer"],
        "failure_code": row["failure_code"],
        "livemode": False,
        "paid": paid,
        "payment_intent": row["payment_intent"],
        "payment_method": row["payment_method"],
        "status": row["status"],
    }


def _fresh(call: Call, row: sqlite3.Row) -> dict[str, Any]:
    return intent_json(fetch(call, "payment_intents", "payment_intent", row["id"], "intent"))
