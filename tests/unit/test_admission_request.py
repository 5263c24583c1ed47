"""Query parameters into queries, and the first parameter that is wrong by its name."""

from __future__ import annotations

from urllib.parse import parse_qs

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from billing.admission.request import Malformed, kind_of, parse_account, parse_query
from schemas.admission import CallQuery, ItemQuery, MmsQuery, SmsQuery
from schemas.openapi import AUTHORIZE_PATH, document

PARAMETERS = {parameter["name"]: parameter for parameter in document()["paths"][AUTHORIZE_PATH]["get"]["parameters"]}


def _parsed(text: str) -> object:
    return parse_query(parse_qs(text, keep_blank_values=True))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("kind=call&direction=outbound&to=%2B442079460000", CallQuery(direction="outbound", to="+442079460000")),
        ("kind=call&direction=outbound&to=+442079460000", CallQuery(direction="outbound", to="+442079460000")),
        ("to=+12025550123&direction=inbound&kind=call", CallQuery(direction="inbound", to="+12025550123")),
        ("kind=sms&direction=outbound&to=short:12345", SmsQuery(direction="outbound", to="short:12345")),
        (
            "kind=sms&direction=outbound&to=+12025550123&segments=3",
            SmsQuery(direction="outbound", to="+12025550123", segments=3),
        ),
        ("kind=mms&direction=inbound&to=+12025550123", MmsQuery(direction="inbound", to="+12025550123", segments=1)),
        ("kind=item&sku=number.local", ItemQuery(sku="number.local", quantity=1)),
        ("kind=item&sku=number.local&quantity=2147483647", ItemQuery(sku="number.local", quantity=2**31 - 1)),
    ],
)
def test_a_query_is_read(text: str, query: CallQuery | SmsQuery | MmsQuery | ItemQuery) -> None:
    assert _parsed(text) == query
    assert f"kind={kind_of(query)}" in text


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "kind"),
        ("kind=", "kind"),
        ("kind=fax&direction=outbound", "kind"),
        ("kind=call&kind=call", "kind"),
        ("kind=call&to=+12025550123", "direction"),
        ("kind=call&direction=sideways&to=+12025550123", "direction"),
        ("kind=call&direction=outbound", "to"),
        ("kind=call&direction=outbound&to=", "to"),
        ("kind=call&direction=outbound&to=12025550123", "to"),
        ("kind=call&direction=outbound&to=++12025550123", "to"),
        ("kind=call&direction=outbound&to=+12025550123%0A", "to"),
        ("kind=call&direction=outbound&to=+0202555012", "to"),
        ("kind=call&direction=outbound&to=short:12345", "to"),
        ("kind=call&direction=outbound&to=+12025550123&to=+12025550123", "to"),
        ("kind=call&direction=outbound&to=+12025550123&segments=1", "segments"),
        ("kind=call&direction=outbound&to=+12025550123&form=x", "form"),
        ("kind=sms&direction=outbound&to=short:12", "to"),
        ("kind=sms&direction=outbound&to=short:12345&segments=0", "segments"),
        ("kind=sms&direction=outbound&to=short:12345&segments=-1", "segments"),
        ("kind=sms&direction=outbound&to=short:12345&segments=1.0", "segments"),
        ("kind=sms&direction=outbound&to=short:12345&segments=1e3", "segments"),
        ("kind=sms&direction=outbound&to=short:12345&segments=%D9%A1", "segments"),
        ("kind=sms&direction=outbound&to=short:12345&segments=2147483648", "segments"),
        ("kind=item", "sku"),
        ("kind=item&sku=a/b", "sku"),
        ("kind=item&sku=a&quantity=", "quantity"),
        ("kind=item&sku=a&direction=outbound", "direction"),
    ],
)
def test_what_is_wrong_is_named(text: str, field: str) -> None:
    found = _parsed(text)
    assert isinstance(found, Malformed)
    assert found.field == field
    assert found.problem
    assert not set(found.problem) & set("\\^$[]{}")  # words, not a pattern


def test_what_a_destination_may_be_is_said_in_words() -> None:
    number = "must be + and 7 to 15 digits, the first not 0, for example +442079460000 (in a URL, + is %2B)"
    assert _parsed("kind=call&direction=outbound&to=020") == Malformed("to", number)
    or_short = f"{number}; or short: and 3 to 12 digits, for example short:12345"
    assert _parsed("kind=sms&direction=outbound&to=short:12") == Malformed("to", or_short)


@pytest.mark.parametrize(("account", "fits"), [("acme", True), ("a.b:c-d_1", True), ("", False), ("a b", False)])
def test_account_ids_are_checked(account: str, fits: bool) -> None:
    assert (parse_account(account) is None) == fits
    assert jsonschema.Draft202012Validator(PARAMETERS["id"]["schema"]).is_valid(account) == fits


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("to", "+442079460000", True),
        ("to", "short:12345", True),
        ("to", "442079460000", False),
        ("kind", "fax", False),
        ("direction", "inbound", True),
        ("direction", "", False),
        ("segments", 1, True),
        ("segments", 0, False),
        ("quantity", 2**31, False),
        ("sku", "a/b", False),
    ],
)
def test_the_openapi_document_says_the_same(name: str, value: str | int, fits: bool) -> None:
    assert jsonschema.Draft202012Validator(PARAMETERS[name]["schema"]).is_valid(value) == fits
