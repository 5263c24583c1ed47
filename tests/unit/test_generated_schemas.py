"""The generated JSON Schema and AsyncAPI documents: current, valid, and in agreement with what the code accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import msgspec
import pytest
import usage_builders as build

from billing.settings import Settings
from billing.usage.decode import Undecodable, decode
from schemas import generate, ledger
from schemas.catalogue import encode_catalogue
from schemas.deadletter import DeadLetterRow
from schemas.jsonschema import message_type
from schemas.reasons import DeadLetterReason
from schemas.usage import tick

FILES = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in generate.FOLDER.glob("*.json")}
ASYNCAPI = FILES["asyncapi.json"]


def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(FILES[name])


def test_the_committed_files_are_current() -> None:
    assert generate.outdated() == [], "run python -m schemas.generate"


def test_check_names_what_is_out_of_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.write(tmp_path)
    assert generate.outdated(tmp_path) == []
    (tmp_path / "asyncapi.json").write_text("{}")
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "dead-letter.json").unlink()
    assert generate.outdated(tmp_path) == ["asyncapi.json", "dead-letter.json", "old.json"]
    generate.write(tmp_path)
    assert generate.outdated(tmp_path) == []
    assert generate.main(["--check"]) == 0
    assert generate.main(["--wrong"]) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"asyncapi.json", "openapi.json"}))
def test_every_schema_is_a_valid_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(FILES[name])


@pytest.mark.parametrize("name", sorted(FILES))
def test_patterns_mean_the_same_to_readers_in_other_languages(name: str) -> None:
    r"""Python's \Z is a literal Z in ECMA-262, whose regular expressions JSON Schema has."""
    assert "\\Z" not in (generate.FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("type_", "data"), build.EXAMPLES)
def test_usage_examples_fit_their_schema(type_: str, data: dict[str, Any]) -> None:
    _validator("usage.events.json").validate(build.envelope(type_, data))


def test_ticks_entries_and_catalogue_messages_fit_their_schemas() -> None:
    _validator("usage.events.json").validate(json.loads(tick("billing/inflight", "t-1")))
    entry = ledger.EntryPosted(
        account="a-1",
        ledger_seq=2,
        timeline="t1",
        entry_id="e-1",
        amount_micros=-1,
        currency="USD",
        origin="refund",
        reason="",
    )
    _validator("ledger.entries.json").validate(json.loads(ledger.encode_entry(entry, build.NOW_MS)))
    for message in (build.tariff(), build.assignment(), build.heartbeat()):
        _validator("billing.tariffs.json").validate(json.loads(encode_catalogue(message, build.NOW_MS)))
    row = DeadLetterRow(
        topic="usage.events",
        partition=0,
        offset=1,
        timestamp_ms=2,
        reason=DeadLetterReason.NOT_JSON,
        detail="",
        key_base64=None,
        value_base64="AA==",
        headers=[],
        account=None,
        state="open",
    )
    _validator("dead-letter.json").validate(json.loads(msgspec.json.encode(row)))
    assert FILES["dead-letter.json"]["$defs"]["DeadLetterReason"]["enum"] == sorted(DeadLetterReason)


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (build.CALL, build.call(call_id="a b")),
        (build.CALL, build.call(call_id="")),
        (build.CALL, build.call(to="12025550123")),
        (build.CALL, build.call(to="short:12345")),
        (build.CALL, build.call(duration_seconds=-1)),
        (build.CALL, build.call(duration_seconds=2**31)),
        (build.CALL, build.call(duration_seconds=1.5)),
        (build.CALL, build.call(status="hung-up")),
        (build.CALL, build.call(**{"from": "a\u0000"})),
        (build.CALL, build.call(parent_call_id="a b")),
        (build.ACCEPTED, build.accepted(segments=0)),
        (build.ACCEPTED, build.accepted(to="short:12")),
        (build.ITEM, build.item(sku="a/b")),
        ("usage.item.completed.v2", build.item()),
        (build.ITEM, {}),
    ],
)
def test_what_the_decoder_refuses_the_schema_refuses(type_: str, data: dict[str, Any]) -> None:
    event = build.envelope(type_, data)
    assert isinstance(decode(build.structured(event)), Undecodable)
    assert not _validator("usage.events.json").is_valid(event)


# --- AsyncAPI 3.0, by the rules of its specification ---------------------------------------------------------


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for member in node.values():
            yield from _references(member)
    elif isinstance(node, list):
        for member in node:
            yield from _references(member)


def _resolve(reference: str) -> Any:
    assert reference.startswith("#/")
    node = ASYNCAPI
    for step in reference[2:].split("/"):
        assert step in node, f"{reference} points to nowhere"
        node = node[step]
    return node


def test_asyncapi_has_the_required_parts() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= ASYNCAPI["info"].keys()
    allowed = {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"}
    assert ASYNCAPI.keys() <= allowed
    for name in (*ASYNCAPI["components"]["schemas"], *ASYNCAPI["components"]["messages"], *ASYNCAPI["channels"]):
        assert re.fullmatch(r"[\w.-]+", name)


def test_asyncapi_references_all_resolve() -> None:
    references = list(_references(ASYNCAPI))
    assert len(references) > 50
    for reference in references:
        assert _resolve(reference)


def test_asyncapi_channels_are_our_topics() -> None:
    settings = Settings(kafka_bootstrap="", redis_url="", postgres_dsn="")
    topics = settings.topics
    addresses = {channel["address"] for channel in ASYNCAPI["channels"].values()}
    assert addresses == {topics.usage, topics.entries, topics.tariffs, topics.signals}


def test_asyncapi_operations_carry_messages_of_their_channel() -> None:
    for operation in ASYNCAPI["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert channel.startswith("#/channels/")
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")


def test_asyncapi_messages_are_named_by_their_type_and_have_a_payload() -> None:
    for name, message in ASYNCAPI["components"]["messages"].items():
        payload = _resolve(message["payload"]["$ref"])
        assert payload["properties"]["type"]["enum"] == [name] == [message["name"]]
        jsonschema.Draft7Validator.check_schema(payload)
    used = {message for channel in ASYNCAPI["channels"].values() for message in channel["messages"]}
    assert used == ASYNCAPI["components"]["messages"].keys()


def test_every_event_type_is_in_the_asyncapi_document() -> None:
    types = {type_ for type_, _ in build.EXAMPLES} | {"billing.tick.v1"}
    types |= {message_type(struct) for struct in (ledger.AccountOpenedEvent, ledger.DebitsAcknowledgedEvent)}
    assert types <= ASYNCAPI["components"]["messages"].keys()
