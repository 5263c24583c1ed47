"""A header name that is not UTF-8: aiokafka raises on it, so it would hold its partition for ever."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.producer import producer as producer_module
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.topics import ensure_topics


class _RawName(str):
    """A header name with any bytes."""

    def encode(self, *_: Any) -> bytes:
        return b"ce_\xff\xfe"


async def _publish(settings: Settings, codec: str | None) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, linger_ms=200, compression_type=codec, enable_idempotence=True
    )
    await producer.start()
    try:
        sent = []
        for number in range(9):
            name = _RawName("x") if number % 4 == 3 else f"name-{number}"
            sent.append(
                await producer.send(
                    settings.topics.usage, b"value %d" % number, partition=0, headers=[(name, b"1"), ("nothing", None)]
                )
            )
        for future in sent:
            await future
    finally:
        await producer.stop()


@pytest.fixture
def any_header_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer's C extension takes no bytes for a header name; its pure Python twin asks the name itself."""
    for module in (message_accumulator, producer_module):
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)


@pytest.mark.usefixtures("any_header_names")
@pytest.mark.parametrize("codec", [None, "gzip", "lz4", "snappy", "zstd"])
async def test_s21_a_header_name_that_is_not_utf8_holds_nobody(settings: Settings, codec: str | None) -> None:
    await ensure_topics(settings)
    await _publish(settings, codec)
    await _publish(settings, codec)
    async with LogReader(settings.kafka_bootstrap) as reader:
        found = [record async for record in reader.read(settings.topics.usage, 0, 0, 18)]
    assert [record.offset for record in found] == list(range(18))
    assert [record.value for record in found] == [b"value %d" % (number % 9) for number in range(18)]
    assert found[3].headers == (("ce_\\xff\\xfe", b"1"), ("nothing", None))
    assert found[12].headers[0] == ("ce_\\xff\\xfe", b"1")
    assert found[4].headers[0] == ("name-4", b"1")
