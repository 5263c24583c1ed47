"""Refunds of succeeded payments: at most what was received, in one or more parts. One that has succeeded may fail
later: the customer's bank sends the money back."""

from __future__ import annotations

import sqlite3
from typing import Any

from billing.lab.sandbox.call import Call, encode_metadata, fetch, metadata, page
from billing.lab.sandbox.charging import unexpected_state
from billing.lab.sandbox.contracts import CreateRefund, ListParams, Nothing
from billing.lab.sandbox.errors import INVALID_REQUEST, Answer, Invalid, answer, error
from billing.lab.sandbox.store import new_id


def create(call: Call) -> Answer:
    """POST /v1/refunds"""
    params = call.read(CreateRefund)
    intent = fetch(call, "payment_intents", "payment_intent", params.payment_intent, "payment_intent", in_path=False)
    if params.amount is not None and int(params.amount) < 1:
        raise Invalid("Invalid positive integer", code="parameter_invalid_integer", param="amount")
    if intent["status"] != "succeeded":
        return unexpected_state(intent, f"This PaymentIntent cannot be refunded: its status is {intent['status']}.")
    (refunded,) = call.db.execute(
        "SELECT coalesce(sum(amount), 0) FROM refunds"
        " WHERE payment_intent = ? AND id NOT IN (SELECT id FROM failed_refunds)",
        (intent["id"],),
    ).fetchone()
    left = intent["amount_received"] - refunded
    amount = left if params.amount is None else int(params.amount)
    if left == 0:
        message = f"Charge {intent['latest_charge']} has already been refunded."
        return error(400, INVALID_REQUEST, message, code="charge_already_refunded")
    if amount > left:
        message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})."
        return error(400, INVALID_REQUEST, message, param="amount")
    identifier = new_id("re")
    call.db.execute(
        "INSERT INTO refunds (id, created, payment_intent, charge, amount, currency, reason, metadata)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(identifier, call.now, intent["id"], intent["latest_charge"], amount),
            *(intent["currency"], params.reason, encode_metadata(params.metadata)),
        ),
    )
    return answer(200, refund_json(fetch(call, "refunds", "refund", identifier, "id"), call.db))


def read(call: Call) -> Answer:
    """GET /v1/refunds/:id"""
    call.read(Nothing)
    return answer(200, refund_json(fetch(call, "refunds", "refund", call.identifier, "id"), call.db))


def list_all(call: Call) -> Answer:
    """GET /v1/refunds"""
    intent = call.read(ListParams).payment_intent
    return page(call, "refunds", "refund", lambda row: refund_json(row, call.db), {"payment_intent": intent})


def fail(db: sqlite3.Connection, refund: str) -> bool:
    """It comes back, inside a transaction; whether there is one that has not yet."""
    found = db.execute("INSERT OR IGNORE INTO failed_refunds SELECT id FROM refunds WHERE id = ?", (refund,))
    return found.rowcount == 1


def refund_json(row: sqlite3.Row, db: sqlite3.Connection) -> dict[str, Any]:
    """A refund as JSON."""
    failed = db.execute("SELECT 1 FROM failed_refunds WHERE id = ?", (row["id"],)).fetchone() is not None
    return {
        "id": row["id"],
        "object": "refund",
        "amount": row["amount"],
        "charge": row["charge"],
        "created": row["created"],
        "currency": row["currency"],
        "metadata": metadata(row),
        "payment_intent": row["payment_intent"],
        "reason": row["reason"],
        "failure_reason": "expired_or_canceled_card" if failed else None,
        "status": "failed" if failed else "succeeded",
    }
