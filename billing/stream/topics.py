"""The four topics: created as they must be; existing ones that differ are refused by name, never altered."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from billing.settings import SettingError, Settings
from billing.stream.log import LogAway

DAY_MS = 86_400_000
MAX_TARIFF_BYTES = 16 * 1024 * 1024
REQUEST_TIMEOUT_MS = 15_000
DEADLINE_SECONDS = 30.0
ALREADY_EXISTS = 36


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic must be: `fixed` settings are checked on existing topics, `initial` ones an operator may change."""

    name: str
    partitions: int
    fixed: Mapping[str, str]
    initial: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicsReady:
    """All four are there as they must be; `created` were not there before."""

    created: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TopicsRefused:
    """Existing topics that do not fit, one line each; nothing was created."""

    reasons: tuple[str, ...]


TopicsAnswer: TypeAlias = TopicsReady | TopicsRefused


def topic_specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """Log time is the broker's (LogAppendTime): no verdict depends on a producer's clock.

    ledger.entries keeps 30 days like usage.events, not for ever: a rebuild takes the ledger's own snapshot and reads
    entries only from the end that it captured, so older ones serve nobody, and a consumer that lags longer halts
    on usage anyway (S18). billing.tariffs is read from its beginning by every process, hence compacted.
    """
    log_time = {"message.timestamp.type": "LogAppendTime"}
    deleted = {**log_time, "cleanup.policy": "delete"}
    month, week = {"retention.ms": str(30 * DAY_MS)}, {"retention.ms": str(7 * DAY_MS)}
    names, count = settings.topics, settings.partitions
    return (
        TopicSpec(names.usage, count, deleted, month),
        TopicSpec(names.entries, count, deleted, month),
        TopicSpec(
            names.tariffs,
            1,
            {**log_time, "cleanup.policy": "compact", "max.message.bytes": str(MAX_TARIFF_BYTES)},
            {"segment.ms": str(DAY_MS), "min.cleanable.dirty.ratio": "0.1"},  # a heartbeat every 5 s is mostly waste
        ),
        TopicSpec(names.signals, count, deleted, week),
    )


def replication_factor(environ: Mapping[str, str] = os.environ) -> int:
    """BILLING_REPLICATION_FACTOR, or -1: the broker's default. Raises SettingError."""
    value = environ.get("BILLING_REPLICATION_FACTOR", "").strip()
    if not value:
        return -1
    if not re.fullmatch(r"\d{1,3}", value) or int(value) == 0:
        raise SettingError(f"BILLING_REPLICATION_FACTOR must be a whole number of at least 1, got {value!r}")
    return int(value)


async def ensure_topics(settings: Settings, *, replicas: int | None = None) -> TopicsAnswer:
    """Create what is missing. Raises LogAway when Kafka does not answer, SettingError for a malformed setting."""
    specs = topic_specs(settings)
    factor = replication_factor() if replicas is None else replicas
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap, client_id="billing-topics", request_timeout_ms=REQUEST_TIMEOUT_MS
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await admin.start()
            reasons = await _misfits(admin, specs)
            if reasons:
                return TopicsRefused(reasons)
            created = await _create_missing(admin, specs, factor)
            await _until_led(admin, specs)
            reasons = await _misfits(admin, specs)  # someone else may have created one meanwhile
            return TopicsRefused(reasons) if reasons else TopicsReady(created)
    except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
        raise LogAway(f"Kafka at {settings.kafka_bootstrap}: {error or type(error).__name__}") from error
    finally:
        with suppress(kafka_errors.KafkaError, OSError):
            await admin.close()


async def _described(admin: AIOKafkaAdminClient) -> dict[str, Any]:
    """All topics by name: asking for one by name may create it."""
    return {found["topic"]: found for found in await admin.describe_topics()}


async def _misfits(admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...]) -> tuple[str, ...]:
    there = await _described(admin)
    reasons = []
    for spec in specs:
        if spec.name not in there:
            continue
        count = len(there[spec.name]["partitions"])
        if count != spec.partitions:
            reasons.append(f"topic {spec.name} has {count} partitions, {spec.partitions} expected")
        config = await _config(admin, spec.name)
        reasons += [
            f"topic {spec.name} has {name}={config.get(name)}, {wanted} expected"
            for name, wanted in spec.fixed.items()
            if not _fits(name, config.get(name), wanted)
        ]
    return tuple(reasons)


def _fits(name: str, found: str | None, wanted: str) -> bool:
    if name == "max.message.bytes":
        return found is not None and int(found) >= int(wanted)
    return found == wanted


async def _config(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    config: dict[str, str] = {}
    for response in responses:
        for code, message, _, _, entries in response.resources:
            if code != 0:
                raise kafka_errors.for_code(code)(message)
            config.update({entry[0]: entry[1] for entry in entries})
    return config


async def _create_missing(admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...], factor: int) -> tuple[str, ...]:
    there = await _described(admin)
    missing = [spec for spec in specs if spec.name not in there]
    if not missing:
        return ()
    response = await admin.create_topics(
        [
            NewTopic(
                spec.name,
                spec.partitions,
                factor,
                replica_assignments={} if factor == -1 else None,  # NewTopic refuses -1 without any
                topic_configs={**spec.fixed, **spec.initial},
            )
            for spec in missing
        ]
    )
    for name, code, *message in response.topic_errors:
        if code not in (0, ALREADY_EXISTS):
            raise kafka_errors.for_code(code)(f"{name}: {message}")
    return tuple(spec.name for spec in missing)


async def _until_led(admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...]) -> None:
    """Wait until every partition has a leader (the caller's deadline bounds it)."""
    while True:
        there = await _described(admin)
        partitions = [part for spec in specs for part in there.get(spec.name, {"partitions": [None]})["partitions"]]
        if all(part is not None and part["leader"] >= 0 for part in partitions):
            return
        await asyncio.sleep(0.05)
