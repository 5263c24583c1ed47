"""`billing publish FILE.jsonl`: CloudEvents, one a line, as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from billing.cli.common import json_option, print_fields, refuse, run
from billing.cli.errors import in_plain_words
from billing.settings import Settings
from billing.stream.publisher import Outgoing, Publisher, PublishFailed

CHUNK = 5_000
_CONTENT_TYPE = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


class _Subject(msgspec.Struct):
    subject: str | None = None


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@json_option
def publish(file: Path, as_json: bool) -> None:
    """Publish CloudEvents in structured JSON, one a line, to usage.events; the key is the event's subject.

    Lines are sent as they are: a line that is no usable event becomes a dead letter, with its reason.
    """

    async def work(settings: Settings) -> int:
        count = 0
        async with Publisher(settings.kafka_bootstrap, client_id="billing-publish") as publisher:
            for chunk in _chunks(file, settings.topics.usage):
                try:
                    count += len(await publisher.publish(chunk))
                except PublishFailed as error:
                    certain = f"{count + error.delivered} events were published for certain"
                    refuse(f"Kafka: {in_plain_words(error)}; {certain}")
        return count

    print_fields({"published": run(work(Settings.from_env()))}, as_json=as_json)


def _chunks(file: Path, topic: str) -> Iterator[list[Outgoing]]:
    chunk: list[Outgoing] = []
    with click.open_file(str(file), "rb") as lines:
        for line in lines:
            value = line.strip()
            if value:
                chunk.append(Outgoing(topic, value, key=_key(value), headers=_CONTENT_TYPE))
            if len(chunk) >= CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _key(value: bytes) -> bytes | None:
    """The event's subject; None where there is none to be found."""
    try:
        subject = msgspec.json.decode(value, type=_Subject).subject
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if subject is None else subject.encode()
