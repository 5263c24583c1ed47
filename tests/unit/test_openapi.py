"""The OpenAPI document: its references, its shape by the rules of OpenAPI 3.1, and answers that fit it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import msgspec
import pytest

from schemas import generate
from schemas.admission import (
    QUERY_TYPES,
    AsOf,
    Authorization,
    AuthorizationReason,
    BalanceSeen,
    Problem,
)

OPENAPI = json.loads((generate.FOLDER / "openapi.json").read_text(encoding="utf-8"))
SCHEMAS = OPENAPI["components"]["schemas"]
AUTHORIZE = OPENAPI["paths"]["/v1/accounts/{id}/authorize"]["get"]


def _validate(schema: str, answer: msgspec.Struct) -> None:
    validator = jsonschema.Draft202012Validator({**OPENAPI, "$ref": f"#/components/schemas/{schema}"})
    validator.validate(json.loads(msgspec.json.encode(answer)))


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for member in node.values():
            yield from _references(member)
    elif isinstance(node, list):
        for member in node:
            yield from _references(member)


def test_every_reference_leads_to_a_valid_schema_and_every_schema_is_used() -> None:
    prefix = "#/components/schemas/"
    references = set(_references(OPENAPI))
    assert references == {prefix + name for name in SCHEMAS}
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_operation_names_its_parameters_once_and_its_answers() -> None:
    assert OPENAPI["openapi"] == "3.1.0"
    names = [parameter["name"] for parameter in AUTHORIZE["parameters"]]
    fields = {field.name for query in QUERY_TYPES for field in msgspec.structs.fields(query)}
    assert sorted(names) == sorted({"id", "kind"} | fields)
    for parameter in AUTHORIZE["parameters"]:
        assert parameter["in"] in ("path", "query")
        assert parameter["required"] or parameter["in"] == "query"
        jsonschema.Draft202012Validator.check_schema(parameter["schema"])
    assert set(AUTHORIZE["responses"]) == {"200", "400", "404", "405", "500"}
    for status, response in AUTHORIZE["responses"].items():
        expected = "application/json" if status == "200" else "application/problem+json"
        assert list(response["content"]) == [expected]


@pytest.mark.parametrize("reason", AuthorizationReason)
def test_answers_fit_their_schema(reason: AuthorizationReason) -> None:
    answer = Authorization(
        account="acme",
        kind="call",
        allowed=False,
        reason=reason,
        policy=None,
        balance=BalanceSeen(status="known", available_micros=-5, credit_limit_micros=0),
        currency="USD",
        affordable_seconds=0,
        as_of=AsOf(log_time_ms=1, positions={"usage.events": 4}, ledger_seq=1),
    )
    _validate("Authorization", answer)
    assert set(SCHEMAS["Authorization"]["required"]) == json.loads(msgspec.json.encode(answer)).keys()


def test_an_unknown_balance_and_problems_fit_their_schema() -> None:
    _validate("BalanceSeen", BalanceSeen(status="unknown", reason="gap"))
    _validate("Problem", Problem(title="Bad Request", status=400, code="malformed_request", field="to"))
    _validate("Problem", Problem(title="Not Found", status=404, code="unknown_account"))


def test_the_reasons_are_all_in_the_document() -> None:
    assert SCHEMAS["AuthorizationReason"]["enum"] == sorted(AuthorizationReason)
