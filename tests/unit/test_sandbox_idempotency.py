"""The sandbox's idempotency keys follow Stripe's documentation, rule by rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from billing.lab.sandbox import faults
from billing.lab.sandbox.api import Api, Reply, Request, Work
from billing.lab.sandbox.faults import FaultOrder
from billing.lab.sandbox.store import StateError, Store

INTENTS = "/v1/payment_intents"
PARAMS = {"amount": "2000", "currency": "usd", "payment_method": "pm_card_visa"}


class Client:
    """Calls the API as a client would, on a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_800_000_000.0
        self.store = Store(folder)
        self.api = Api(self.store, now=lambda: self.now)

    def restart(self) -> None:
        self.store.close()
        self.store = Store(self.folder)
        self.api = Api(self.store, now=lambda: self.now)

    def request(self, path: str, params: dict[str, str], key: str | None) -> Request:
        bearer = f"Bearer {self.store.api_key}"
        return Request("POST", path, urlencode(params), authorization=bearer, idempotency_key=key)

    def post(self, path: str, params: dict[str, str] | None = None, key: str | None = None) -> Reply:
        work = self.api.begin(self.request(path, params or {}, key))
        return self.api.finish(work) if isinstance(work, Work) else work

    def count(self, table: str) -> int:
        (rows,) = self.store.db.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(rows)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    client = Client(tmp_path)
    yield client
    client.store.close()


def content(reply: Reply) -> Any:
    return json.loads(reply.answer.body)


def new_intent(client: Client, **changes: str) -> str:
    identifier: str = content(client.post(INTENTS, PARAMS | changes))["id"]
    return identifier


def test_a_repeated_request_gets_the_saved_answer_and_changes_nothing(client: Client) -> None:
    first = client.post(INTENTS, PARAMS, "k")
    again = client.post(INTENTS, PARAMS, "k")
    assert again.answer == first.answer
    assert (first.original_request, again.original_request) == (None, first.request_id)
    assert client.count("payment_intents") == 1


def test_the_order_of_parameters_does_not_matter(client: Client) -> None:
    first = client.post(INTENTS, PARAMS, "k")
    assert client.post(INTENTS, dict(reversed(PARAMS.items())), "k").answer == first.answer


def test_another_key_or_none_is_another_request(client: Client) -> None:
    for key in ("k1", "k2", None, None):
        client.post(INTENTS, PARAMS, key)
    assert client.count("payment_intents") == 4


@pytest.mark.parametrize("path", [INTENTS, "/v1/customers"])
def test_a_key_used_for_something_else_is_an_idempotency_error(client: Client, path: str) -> None:
    client.post(INTENTS, PARAMS, "k")
    reply = client.post(path, PARAMS | {"amount": "2001"}, "k")
    assert reply.answer.status == 400
    assert content(reply)["error"]["type"] == "idempotency_error"
    assert client.count("payment_intents") == 1
    assert client.post(INTENTS, PARAMS, "k").original_request is not None  # the first result is still there


def test_a_decline_is_saved(client: Client) -> None:
    intent = new_intent(client, payment_method="pm_card_chargeCustomerFail")
    first = client.post(f"{INTENTS}/{intent}/confirm", key="k")
    again = client.post(f"{INTENTS}/{intent}/confirm", key="k")
    assert (first.answer.status, again.answer) == (402, first.answer)
    assert client.count("charges") == 1


def test_a_500_is_saved_and_the_charge_stands(client: Client) -> None:
    intent = new_intent(client)
    faults.add(client.store.db, FaultOrder("error_after_confirm"))
    for _ in range(2):
        assert client.post(f"{INTENTS}/{intent}/confirm", key="k").answer.status == 500
    assert client.count("charges") == 1
    assert client.post(f"{INTENTS}/{intent}/confirm", key="k2").answer.status == 400  # it has succeeded already
    assert client.count("charges") == 1


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"amount": "12.5"}, "parameter_invalid_integer"),
        ({"amount": "-1"}, "parameter_invalid_integer"),
        ({"amount": "nan"}, "parameter_invalid_integer"),
        ({"amount": "0"}, "parameter_invalid_integer"),
        ({"customer": "cus_none"}, "resource_missing"),
        ({"card[number]": "1"}, "parameter_unknown"),
    ],
)
def test_a_validation_failure_is_not_saved(client: Client, wrong: dict[str, str], code: str) -> None:
    reply = client.post(INTENTS, PARAMS | wrong, "k")
    assert (reply.answer.status, content(reply)["error"]["code"]) == (400, code)
    assert client.post(INTENTS, PARAMS, "k").answer.status == 200
    assert client.count("payment_intents") == 1


def test_a_request_beside_another_with_its_key_is_a_conflict_and_not_saved(client: Client) -> None:
    intent = new_intent(client)
    confirm = client.request(f"{INTENTS}/{intent}/confirm", {}, "k")
    under_way = client.api.begin(confirm)
    assert isinstance(under_way, Work)
    beside = client.api.begin(confirm)
    assert isinstance(beside, Reply)
    assert (beside.answer.status, content(beside)["error"]["code"]) == (409, "idempotency_key_in_use")
    first = client.api.finish(under_way)
    again = client.api.begin(confirm)
    assert isinstance(again, Reply)
    assert again.answer == first.answer
    assert client.count("charges") == 1


def test_a_key_is_free_again_after_a_validation_failure_or_an_abandoned_request(client: Client) -> None:
    client.post(INTENTS, PARAMS | {"amount": "x"}, "k")
    work = client.api.begin(client.request(INTENTS, PARAMS, "k"))
    assert isinstance(work, Work)
    client.api.abandon(work)
    assert client.post(INTENTS, PARAMS, "k").answer.status == 200


def test_s33_keys_are_forgotten_after_a_day_and_payments_are_not(client: Client) -> None:
    intent = new_intent(client)
    first = client.post(f"{INTENTS}/{intent}/confirm", key="k")
    client.now += 24 * 3600 - 1
    assert client.post(f"{INTENTS}/{intent}/confirm", key="k").answer == first.answer
    client.now += 1
    late = client.post(f"{INTENTS}/{intent}/confirm", key="k")
    assert content(late)["error"]["code"] == "payment_intent_unexpected_state"
    assert content(late)["error"]["payment_intent"]["status"] == "succeeded"
    assert client.count("charges") == 1


def test_s33_keys_can_be_forgotten_now(client: Client) -> None:
    client.post(INTENTS, PARAMS, "k")
    assert client.api.forget_keys() == 1
    assert client.post(INTENTS, PARAMS, "k").original_request is None
    assert client.count("payment_intents") == 2


def test_keys_payments_and_faults_survive_a_restart(client: Client) -> None:
    first = client.post(INTENTS, PARAMS, "k")
    faults.add(client.store.db, FaultOrder("decline", count=2))
    client.restart()
    assert client.post(INTENTS, PARAMS, "k").answer == first.answer
    assert faults.pending(client.store.db) == [{"fault": "decline", "count": 2, "seconds": 0.0}]


def test_faults_wait_for_a_confirmation_that_would_charge(client: Client) -> None:
    faults.add(client.store.db, FaultOrder("decline", count=2))
    declined = client.post(INTENTS, PARAMS | {"confirm": "true"})  # takes the first
    done = content(declined)["error"]["payment_intent"]["id"]
    intent = new_intent(client)
    client.post(f"{INTENTS}/{done}/confirm", key="a")  # has no payment method any more
    client.post(f"{INTENTS}/pi_none/confirm", key="b")
    assert client.post(f"{INTENTS}/{intent}/confirm", key="c").answer.status == 402
    assert faults.pending(client.store.db) == []


def test_without_the_folder_s_key_nothing_is_done(client: Client) -> None:
    for header in ("", "Bearer sk_test_wrong", "Basic c2tfdGVzdF93cm9uZzo=", "Basic !"):
        reply = client.api.begin(Request("POST", INTENTS, urlencode(PARAMS), authorization=header))
        assert isinstance(reply, Reply)
        assert reply.answer.status == 401
    assert client.count("payment_intents") == 0


def test_off_session_is_taken_only_with_confirm(client: Client) -> None:
    assert client.post(INTENTS, PARAMS | {"off_session": "true"}).answer.status == 400
    reply = client.post(INTENTS, PARAMS | {"off_session": "true", "confirm": "true"})
    assert content(reply)["status"] == "succeeded"


def test_the_name_that_newer_api_versions_refuse_is_taken_from_older_ones(client: Client) -> None:
    params = PARAMS | {"payment_method_types[0]": "card"}
    assert client.post(INTENTS, params).answer.status == 200
    for version, status in (("2026-08-26.dahlia", 200), ("2026-09-30.endive", 400)):
        request = client.request(INTENTS, params, None)
        versioned = Request(request.method, request.path, request.encoded, request.authorization, None, version)
        work = client.api.begin(versioned)
        assert isinstance(work, Work)
        assert client.api.finish(work).answer.status == status


def test_a_state_folder_has_one_sandbox(client: Client) -> None:
    with pytest.raises(StateError, match="already running"):
        Store(client.folder)
