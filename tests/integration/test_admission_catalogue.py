"""The kept catalogue on a real topic: trouble with it takes prices away, and it comes back when the trouble ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import usage_builders as build
from prometheus_client import REGISTRY

from billing.admission.catalogue import KeptCatalogue
from billing.lab.waiting import until
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.stream.publisher import Outgoing, Publisher
from billing.stream.topics import ensure_topics
from schemas.catalogue import CatalogueMessage, catalogue_key, encode_catalogue
from schemas.common import CLOUDEVENTS_HEADERS


@asynccontextmanager
async def _keeping(settings: Settings) -> AsyncIterator[KeptCatalogue]:
    async with LogReader(settings.kafka_bootstrap, client_id="tests") as reader:
        kept = KeptCatalogue(reader, settings.topics.tariffs)
        running = asyncio.create_task(kept.run())
        try:
            yield kept
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def _publish(settings: Settings, *messages: CatalogueMessage) -> None:
    async with Publisher(settings.kafka_bootstrap, client_id="tests") as publisher:
        await publisher.publish(
            Outgoing(
                settings.topics.tariffs, encode_catalogue(each, build.NOW_MS), catalogue_key(each), CLOUDEVENTS_HEADERS
            )
            for each in messages
        )


def _restarts() -> float:
    return REGISTRY.get_sample_value("billing_admission_catalogue_restarts_total") or 0.0


async def test_it_is_there_once_it_was_read_and_grows(settings: Settings) -> None:
    await ensure_topics(settings)
    await _publish(settings, build.tariff(), build.assignment(), build.heartbeat())
    async with _keeping(settings) as kept:
        assert (kept.current, kept.trouble) == (None, "not read yet")
        await until(lambda: kept.current is not None, "the catalogue")
        assert kept.current is not None
        assert (len(kept.current), kept.trouble) == (1, "")
        await _publish(settings, build.assignment("later"))
        await until(lambda: kept.current is not None and len(kept.current) == 2, "the new account")


async def test_a_conflict_takes_the_prices_away_and_does_not_end_it(settings: Settings) -> None:
    await ensure_topics(settings)
    await _publish(settings, build.tariff(), build.assignment(), build.heartbeat())
    async with _keeping(settings) as kept:
        await until(lambda: kept.current is not None, "the catalogue")
        await _publish(settings, build.heartbeat(timeline="t2"))
        await until(lambda: kept.current is None, "the conflict")
        assert "timeline t2 after t1" in kept.trouble
        before = _restarts()
        await until(lambda: _restarts() > before, "another look")  # it was read anew, and is no better
        assert kept.current is None
        assert "timeline t2 after t1" in kept.trouble


async def test_a_malformed_record_takes_the_prices_away(settings: Settings) -> None:
    await ensure_topics(settings)
    await _publish(settings, build.tariff(), build.heartbeat())
    async with _keeping(settings) as kept:
        await until(lambda: kept.current is not None, "the catalogue")
        async with Publisher(settings.kafka_bootstrap, client_id="tests") as publisher:
            await publisher.publish([Outgoing(settings.topics.tariffs, b"{}", b"what", CLOUDEVENTS_HEADERS)])
        await until(lambda: kept.current is None, "the trouble")
        assert kept.trouble.startswith("MalformedMessage")


async def test_without_kafka_there_is_no_catalogue_and_no_end(settings: Settings) -> None:
    away = Settings("127.0.0.1:1", settings.redis_url, settings.postgres_dsn, settings.namespace)
    async with _keeping(away) as kept:
        await asyncio.sleep(0.3)
        assert (kept.current, kept.trouble) == (None, "not read yet")
