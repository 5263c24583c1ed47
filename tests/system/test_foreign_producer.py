"""A producer that is not ours: librdkafka, with its own partitioner."""

from __future__ import annotations

import asyncio
import time

from confluent_kafka import KafkaError, Message, Producer
from system_harness import MakeTraffic, RunPipeline

from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts
from billing.lab.traffic import Mix, Traffic
from billing.settings import Settings


def _publish(settings: Settings, traffic: Traffic, ticks: int, each: int) -> int:
    """As fast as librdkafka sends, in traffic time of the last moments. Returns how many were acknowledged."""
    acknowledged = 0
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        nonlocal acknowledged
        if error is None:
            acknowledged += 1
        else:
            errors.append(error)

    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 5,
        }
    )
    begin_ms = int(time.time() * 1000) - 10 * ticks
    for tick in range(ticks):
        for record in traffic.take(begin_ms + 10 * tick, each):
            producer.produce(
                settings.topics.usage,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=delivered,
                partition=-1 if record.partition is None else record.partition,  # -1: librdkafka's choice
            )
        producer.poll(0)
    assert producer.flush(30) == 0
    assert not errors
    return acknowledged


async def test_s21_librdkafka_in_both_modes_with_poison_ends_with_both_books_exact(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline
) -> None:
    """S13, S19, S21 and S22 end to end: poison of every kind, repeats, completions before their start."""
    traffic = make_traffic(
        21, Mix(poison=0.1, repeat_same_id=0.05, repeat_other_id=0.05, reordered=0.1, differing=0.01)
    )
    async with run_pipeline(settings) as pipeline:
        await open_accounts(settings, committed_accounts())
        sent = await asyncio.to_thread(_publish, settings, traffic, ticks=1500, each=8)
        assert sent == traffic.expected.published == 12_000
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert found.failed == []
        assert traffic.expected.duplicates > 100
        assert len(traffic.expected.differing) > 5
