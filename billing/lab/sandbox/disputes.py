"""Disputes: the customer's bank takes a payment's money back, and gives it again when the dispute is won."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal

import msgspec

from billing.lab.sandbox.call import Call, page
from billing.lab.sandbox.contracts import ListParams
from billing.lab.sandbox.errors import Answer
from billing.lab.sandbox.store import new_id


class DisputeOrder(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the bank does: open a dispute of `payment_intent` (of `amount`, or all), or bring `dispute` to `status`."""

    payment_intent: str | None = None
    amount: int | None = None
    dispute: str | None = None
    status: Literal["needs_response", "under_review", "won", "lost", "warning_needs_response"] = "needs_response"


def order(db: sqlite3.Connection, wanted: DisputeOrder, now: int) -> str | None:
    """Carry it out inside a transaction; the dispute's id, or None where there is nothing to dispute."""
    if wanted.dispute is not None:
        changed = db.execute("UPDATE disputes SET status = ? WHERE id = ?", (wanted.status, wanted.dispute)).rowcount
        return wanted.dispute if changed else None
    row = db.execute(
        "SELECT * FROM payment_intents WHERE id = ? AND status = 'succeeded'", (wanted.payment_intent,)
    ).fetchone()
    if row is None:
        return None
    identifier = new_id("dp")
    amount = row["amount"] if wanted.amount is None else wanted.amount
    db.execute(
        "INSERT INTO disputes (id, created, payment_intent, charge, amount, currency, status)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (identifier, now, row["id"], row["latest_charge"], amount, row["currency"], wanted.status),
    )
    return identifier


def list_all(call: Call) -> Answer:
    """GET /v1/disputes"""
    return page(call, "disputes", "dispute", dispute_json, {"payment_intent": call.read(ListParams).payment_intent})


def dispute_json(row: sqlite3.Row) -> dict[str, Any]:
    """A dispute as JSON."""
    return {
        "id": row["id"],
        "object": "dispute",
        "amount": row["amount"],
        "charge": row["charge"],
        "created": row["created"],
        "currency": row["currency"],
        "livemode": False,
        "payment_intent": row["payment_intent"],
        "reason": "fraudulent",
        "status": row["status"],
    }
