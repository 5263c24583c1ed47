"""The OpenAPI 3.1 document of the admission service."""

from __future__ import annotations

import msgspec

from schemas.admission import QUERY_TYPES, AsOf, Authorization, BalanceSeen, Lag, Problem
from schemas.common import Id
from schemas.jsonschema import Json, components, message_type, portable

AUTHORIZE_PATH = "/v1/accounts/{id}/authorize"
_PROBLEM_TYPE = "application/problem+json"


def document() -> Json:
    """The OpenAPI document as JSON."""
    _, named = components((Authorization, Problem), "#/components/schemas/{name}")
    for answer in (Authorization, BalanceSeen, AsOf, Lag):  # what does not apply is written as null, not left out
        named[answer.__name__]["required"] = list(named[answer.__name__]["properties"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Prepaid billing: admission",
            "version": "1.0.0",
            "description": (
                "May this usage begin, and how long does the balance last? An answer holds nothing: send "
                "usage.call.started.v1 for that. Where the balance or the price is unknown, the answer says so, and "
                "`allowed` is the setting BILLING_ADMISSION_UNKNOWN (`policy`)."
            ),
        },
        "paths": {
            AUTHORIZE_PATH: {"get": _authorize()},
            "/openapi.json": {"get": _openapi()},
        },
        "components": {"schemas": {name: named[name] for name in sorted(named)}},
    }


def _authorize() -> Json:
    return {
        "operationId": "authorize",
        "summary": "May this account make this call, send this message or buy this?",
        "parameters": [_account(), *_parameters()],
        "responses": {
            "200": _response("Allowed or not, with the reason.", "Authorization", "application/json"),
            "400": _response("A parameter is missing or wrong; `field` names it.", "Problem"),
            "404": _response("There is no such account.", "Problem"),
            "405": _response("Only GET.", "Problem"),
            "500": _response("A bug.", "Problem"),
        },
    }


def _openapi() -> Json:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "openapi",
        "summary": "This document",
        "responses": {"200": {"description": "OpenAPI 3.1", "content": content}},
    }


def _account() -> Json:
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "account",
        "schema": portable(msgspec.json.schema(Id)),
    }


def _parameters() -> list[Json]:
    """`kind`, then every member of the queries; each says of which kinds it is. Where the kinds differ in what they
    take, the schema is any of theirs."""
    kinds = [message_type(query) for query in QUERY_TYPES]
    parameters: list[Json] = [
        {"name": "kind", "in": "query", "required": True, "schema": {"type": "string", "enum": kinds}}
    ]
    for name in dict.fromkeys(field.name for query in QUERY_TYPES for field in msgspec.structs.fields(query)):
        parameters.append(_parameter(name))
    return parameters


def _parameter(name: str) -> Json:
    fields = {
        message_type(query): field
        for query in QUERY_TYPES
        for field in msgspec.structs.fields(query)
        if field.name == name
    }
    schemas: list[Json] = []
    for field in fields.values():
        schema: Json = portable(msgspec.json.schema(field.type))
        if not field.required:
            schema = {**schema, "default": field.default}
        if schema not in schemas:
            schemas.append(schema)
    needed = "required" if next(iter(fields.values())).required else "optional"
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": f"{needed} for {', '.join(fields)}; refused for other kinds",
        "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas},
    }


def _response(description: str, schema: str, content_type: str = _PROBLEM_TYPE) -> Json:
    content = {content_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}
