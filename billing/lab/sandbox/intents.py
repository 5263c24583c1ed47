"""Payment intents: made, confirmed, read, cancelled, listed; and the charges that confirmations lead to."""

from __future__ import annotations

import sqlite3

from billing.lab.sandbox import charging
from billing.lab.sandbox.call import Call, encode_metadata, fetch, page
from billing.lab.sandbox.charging import CONFIRMABLE, intent_json, unexpected_state
from billing.lab.sandbox.contracts import CancelIntent, ConfirmIntent, CreateIntent, ListParams, Nothing
from billing.lab.sandbox.customers import find_or_make
from billing.lab.sandbox.errors import Answer, Invalid, answer
from billing.lab.sandbox.store import new_id

_LARGEST = 99_999_999
_SMALLEST = {"usd": 50, "eur": 50, "gbp": 30, "cad": 50, "aud": 50, "chf": 50, "jpy": 50}
_NO_TYPES_SINCE = "2026-09-30"  # the API version that took `payment_method_types` away


def create(call: Call) -> Answer:
    """POST /v1/payment_intents"""
    params = call.read(CreateIntent)
    if params.payment_method_types is not None and call.api_version >= _NO_TYPES_SINCE:
        raise Invalid(
            "payment_method_types is no longer supported: use allowed_payment_method_types.",
            code="payment_method_types_no_longer_supported",
            param="payment_method_types",
        )
    if params.off_session is not None and params.confirm != "true":
        raise Invalid("off_session can only be used with confirm=true.", param="off_session")
    currency = params.currency.lower()
    amount = _amount(params.amount, currency)
    if params.customer is not None:
        fetch(call, "customers", "customer", params.customer, "customer", in_path=False)
    method = _payment_method(call, params.payment_method, params.customer)
    status = "requires_payment_method" if method is None else "requires_confirmation"
    identifier = new_id("pi")
    call.db.execute(
        "INSERT INTO payment_intents"
        " (id, created, amount, currency, customer, payment_method, description, metadata, status)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(identifier, call.now, amount, currency, params.customer, method),
            *(params.description, encode_metadata(params.metadata), status),
        ),
    )
    row = _row(call, identifier)
    if params.confirm == "true":
        return charging.confirm(call, row, method, off_session=params.off_session == "true")
    return answer(200, intent_json(row))


def read(call: Call) -> Answer:
    """GET /v1/payment_intents/:id"""
    call.read(Nothing)
    return answer(200, intent_json(_row(call, call.identifier)))


def confirm(call: Call) -> Answer:
    """POST /v1/payment_intents/:id/confirm"""
    params = call.read(ConfirmIntent)
    row = _row(call, call.identifier)
    method = row["payment_method"]
    if params.payment_method is not None and row["status"] in CONFIRMABLE:
        method = _payment_method(call, params.payment_method, row["customer"])
    return charging.confirm(call, row, method, off_session=params.off_session == "true")


def cancel(call: Call) -> Answer:
    """POST /v1/payment_intents/:id/cancel"""
    params = call.read(CancelIntent)
    row = _row(call, call.identifier)
    if row["status"] in ("succeeded", "canceled"):
        return unexpected_state(
            row, f"You cannot cancel this PaymentIntent because it has a status of {row['status']}."
        )
    call.db.execute(
        "UPDATE payment_intents SET status = 'canceled', canceled_at = ?, cancellation_reason = ? WHERE id = ?",
        (call.now, params.cancellation_reason, row["id"]),
    )
    return answer(200, intent_json(_row(call, row["id"])))


def list_all(call: Call) -> Answer:
    """GET /v1/payment_intents"""
    customer = call.read(ListParams).customer
    return page(call, "payment_intents", "payment_intent", intent_json, {"customer": customer})


def list_charges(call: Call) -> Answer:
    """GET /v1/charges: every attempt, failed ones too"""
    params = call.read(ListParams)
    filters = {"customer": params.customer, "payment_intent": params.payment_intent}
    return page(call, "charges", "charge", charging.charge_json, filters)


def may_charge(db: sqlite3.Connection, identifier: str) -> bool:
    """Whether a confirmation of this intent would go to the card now (faults wait for one that does)."""
    row = db.execute("SELECT status, payment_method FROM payment_intents WHERE id = ?", (identifier,)).fetchone()
    return row is not None and row["status"] in CONFIRMABLE and row["payment_method"] is not None


def _row(call: Call, identifier: str) -> sqlite3.Row:
    return fetch(call, "payment_intents", "payment_intent", identifier, "intent")


def _amount(given: str, currency: str) -> int:
    amount = int(given)
    if amount < 1:
        raise Invalid(
            "This value must be greater than or equal to 1.", code="parameter_invalid_integer", param="amount"
        )
    if amount < _SMALLEST.get(currency, 1):
        raise Invalid("Amount is below the smallest that can be charged.", code="amount_too_small", param="amount")
    if amount > _LARGEST:
        raise Invalid("Amount must be no more than 99999999.", code="amount_too_large", param="amount")
    return amount


def _payment_method(call: Call, given: str | None, customer: str | None) -> str | None:
    if given is None:
        return None
    row = find_or_make(call, given, "payment_method", in_path=False)
    if row["customer"] is not None and row["customer"] != customer:
        raise Invalid("The payment method you provided is attached to another customer.", param="payment_method")
    identifier: str = row["id"]
    return identifier
