"""The sandbox pages lists as Stripe does, and reads forms as Stripe's clients write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from billing.lab.sandbox import forms
from billing.lab.sandbox.api import Api, Reply, Request
from billing.lab.sandbox.errors import Invalid
from billing.lab.sandbox.store import Store

CUSTOMERS = ("cus_a", "cus_b")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """Ten payments pi_0 … pi_9, one a second from 100 on, customers in turn; a refund and a dispute of each of the
    first five, a minute later."""
    store = Store(tmp_path)
    for customer in CUSTOMERS:
        store.db.execute("INSERT INTO customers (id, created, metadata) VALUES (?, 0, '{}')", (customer,))
    for i in range(10):
        store.db.execute(
            "INSERT INTO payment_intents (id, created, amount, currency, customer, metadata, status)"
            " VALUES (?, ?, 100, 'usd', ?, '{}', 'requires_payment_method')",
            (f"pi_{i}", 100 + i, CUSTOMERS[i % 2]),
        )
    for i in range(5):
        of = (160 + i, f"pi_{i}", f"ch_{i}")
        store.db.execute(
            "INSERT INTO refunds (id, created, payment_intent, charge, amount, currency, metadata)"
            " VALUES (?, ?, ?, ?, 1, 'usd', '{}')",
            (f"re_{i}", *of),
        )
        store.db.execute(
            "INSERT INTO disputes (id, created, payment_intent, charge, amount, currency, status)"
            " VALUES (?, ?, ?, ?, 1, 'usd', 'needs_response')",
            (f"dp_{i}", *of),
        )
    yield _Keyed(store)
    store.close()


class _Keyed(Api):
    """Remembers the key for requests of these tests."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.bearer = f"Bearer {store.api_key}"


def ask(api: Any, query: str, path: str = "/v1/payment_intents") -> tuple[int, Any]:
    work = api.begin(Request("GET", path, query, authorization=api.bearer))
    reply = work if isinstance(work, Reply) else api.finish(work)
    return reply.answer.status, json.loads(reply.answer.body)


def listed(api: Any, query: str, path: str = "/v1/payment_intents") -> tuple[str, bool]:
    status, content = ask(api, query, path)
    assert status == 200
    return "".join(item["id"][3:] for item in content["data"]), content["has_more"]


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ("", "9876543210", False),
        ("limit=3", "987", True),
        ("limit=3&starting_after=pi_7", "654", True),
        ("limit=3&starting_after=pi_2", "10", False),
        ("limit=3&ending_before=pi_2", "543", True),
        ("limit=3&ending_before=pi_7", "98", False),
        ("customer=cus_a", "86420", False),
        ("customer=cus_a&limit=2&starting_after=pi_5", "42", True),
        ("created[gte]=108", "98", False),
        ("created[gt]=103&created[lte]=105", "54", False),
        ("created=104", "4", False),
        ("customer=cus_none", "", False),
    ],
)
def test_a_list_is_newest_first_and_paged_both_ways(api: Api, query: str, ids: str, has_more: bool) -> None:
    assert listed(api, query) == (ids, has_more)


@pytest.mark.parametrize(("path", "prefix"), [("/v1/refunds", "re"), ("/v1/disputes", "dp")])
def test_refunds_and_disputes_are_listed_over_all_payments(api: Api, path: str, prefix: str) -> None:
    assert listed(api, "", path) == ("43210", False)
    assert listed(api, "created[gte]=161&limit=2", path) == ("43", True)
    assert listed(api, f"created[gte]=161&limit=2&starting_after={prefix}_3", path) == ("21", False)
    assert listed(api, "payment_intent=pi_2", path) == ("2", False)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "starting_after=pi_none",
        "starting_after=pi_1&ending_before=pi_2",
        "created[from]=1",
        "status=succeeded",
    ],
)
def test_a_list_that_cannot_be_is_refused(api: Api, query: str) -> None:
    status, content = ask(api, query)
    assert (status, content["error"]["type"]) == (400, "invalid_request_error")


def test_an_address_that_is_not_served_is_404_without_a_code(api: Api) -> None:
    status, content = ask(api, "", "/v1/subscriptions")
    assert status == 404
    assert "code" not in content["error"]


def test_brackets_become_hashes_and_lists() -> None:
    fields = forms.pairs("amount=1&metadata[a]=x%20y&types[0]=card&types[1]=link&more[]=1&more[]=2&n[a][b]=3")
    assert forms.nested(fields) == {
        "amount": "1",
        "metadata": {"a": "x y"},
        "types": ["card", "link"],
        "more": ["1", "2"],
        "n": {"a": {"b": "3"}},
    }


@pytest.mark.parametrize("encoded", ["[a]=1", "a[=1", "a=1&a[b]=2", "&".join(["a=1"] * 501)])
def test_malformed_names_are_refused(encoded: str) -> None:
    with pytest.raises(Invalid):
        forms.nested(forms.pairs(encoded))
