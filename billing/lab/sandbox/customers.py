"""Customers and their payment methods."""

from __future__ import annotations

import sqlite3
from typing import Any

from billing.lab.sandbox.call import Call, encode_metadata, fetch, metadata, page
from billing.lab.sandbox.cards import CARDS
from billing.lab.sandbox.contracts import Attach, CreateCustomer, ListParams, Nothing
from billing.lab.sandbox.errors import Answer, Invalid, answer, error
from billing.lab.sandbox.store import new_id


def create_customer(call: Call) -> Answer:
    """POST /v1/customers"""
    params = call.read(CreateCustomer)
    identifier = new_id("cus")
    call.db.execute(
        "INSERT INTO customers (id, created, name, email, description, metadata) VALUES (?, ?, ?, ?, ?, ?)",
        (identifier, call.now, params.name, params.email, params.description, encode_metadata(params.metadata)),
    )
    return answer(200, _customer(fetch(call, "customers", "customer", identifier, "id")))


def read_customer(call: Call) -> Answer:
    """GET /v1/customers/:id"""
    call.read(Nothing)
    return answer(200, _customer(fetch(call, "customers", "customer", call.identifier, "id")))


def attach(call: Call) -> Answer:
    """POST /v1/payment_methods/:id/attach: a shared token (`pm_card_visa`) becomes a payment method of its own."""
    params = call.read(Attach)
    fetch(call, "customers", "customer", params.customer, "customer", in_path=False)
    method = find_or_make(call, call.identifier, "payment_method", in_path=True)
    if method["customer"] not in (None, params.customer):
        raise Invalid("The payment method you provided has already been attached to a customer.")
    card = CARDS[method["token"]]
    if card.refusal is not None and not card.attaches:
        refusal = card.refusal
        return error(402, "card_error", refusal.message, code=refusal.code, decline_code=refusal.decline_code)
    call.db.execute("UPDATE payment_methods SET customer = ? WHERE id = ?", (params.customer, method["id"]))
    return answer(200, payment_method(fetch(call, "payment_methods", "PaymentMethod", method["id"], "payment_method")))


def read_payment_method(call: Call) -> Answer:
    """GET /v1/payment_methods/:id"""
    call.read(Nothing)
    return answer(
        200, payment_method(fetch(call, "payment_methods", "PaymentMethod", call.identifier, "payment_method"))
    )


def list_payment_methods(call: Call) -> Answer:
    """GET /v1/payment_methods and GET /v1/customers/:id/payment_methods"""
    customer = call.identifier or call.read(ListParams).customer
    if customer is None:
        raise Invalid("Missing required param: customer.", code="parameter_missing", param="customer")
    fetch(call, "customers", "customer", customer, "customer", in_path=bool(call.identifier))
    return page(call, "payment_methods", "PaymentMethod", payment_method, {"customer": customer})


def find_or_make(call: Call, identifier: str, param: str, *, in_path: bool) -> sqlite3.Row:
    """A payment method; one of Stripe's test tokens makes a new one, not attached to anybody."""
    if identifier in CARDS:
        token, identifier = identifier, new_id("pm")
        call.db.execute(
            "INSERT INTO payment_methods (id, created, token) VALUES (?, ?, ?)", (identifier, call.now, token)
        )
    return fetch(call, "payment_methods", "PaymentMethod", identifier, param, in_path=in_path)


def payment_method(row: sqlite3.Row) -> dict[str, Any]:
    """As JSON. Of the card only its brand: card data is kept nowhere (R12)."""
    return {
        "id": row["id"],
        "object": "payment_method",
        "card": {"brand": CARDS[row["token"]].brand},
        "created": row["created"],
        "customer": row["customer"],
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def _customer(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "customer",
        "created": row["created"],
        "description": row["description"],
        "email": row["email"],
        "livemode": False,
        "metadata": metadata(row),
        "name": row["name"],
    }
