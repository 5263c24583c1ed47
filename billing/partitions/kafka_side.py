"""What a migration asks of Kafka: how many partitions there are, who consumes, and more partitions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress

from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from billing.settings import Settings
from billing.stream.log import LogAway

DEADLINE_S = 30.0
REQUEST_TIMEOUT_MS = 15_000
ASK_AGAIN_S = 0.2
BUSY = (14, 15, 16)  # COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR
GROUPS = ("inflight", "postflight", "recharge")


async def partition_counts(settings: Settings) -> dict[str, int]:
    """Partitions of the topics that an account has its home in; those that do not exist are missing. Raises LogAway."""
    topics = settings.topics
    async with _admin(settings) as admin:
        described = await admin.describe_topics()  # all: asking for one by name may create it
    counts = {found["topic"]: len(found["partitions"]) for found in described}
    return {topic: counts[topic] for topic in (topics.usage, topics.entries, topics.signals) if topic in counts}


async def members(settings: Settings) -> dict[str, int]:
    """How many members each consumer group has that owns partitions, where it has any. Raises LogAway."""
    found: dict[str, int] = {}
    async with _admin(settings) as admin:
        for name in GROUPS:
            count = await _members(admin, settings.group(name))
            if count:
                found[name] = count
    return found


async def _members(admin: AIOKafkaAdminClient, group: str) -> int:
    """Asked again while there is no coordinator: a broker finds one when it is asked for the first time."""
    while True:
        try:
            responses = await admin.describe_consumer_groups([group])
        except kafka_errors.GroupIdNotFound:
            return 0
        except (kafka_errors.GroupCoordinatorNotAvailableError, kafka_errors.NotCoordinatorForGroupError):
            await asyncio.sleep(ASK_AGAIN_S)  # the deadline of the whole bounds it
            continue
        found = [described for response in responses for described in response.groups if described[1] == group]
        busy = [described for described in found if described[0] in BUSY]
        if not busy:
            return sum(len(described[5]) for described in found)
        await asyncio.sleep(ASK_AGAIN_S)


async def add_partitions(settings: Settings, to: int, counts: Mapping[str, int]) -> Collection[str]:
    """Bring these topics to `to` partitions; returns those that had fewer. Kafka keeps what they have where it is.
    Raises LogAway."""
    few = {topic: NewPartitions(to) for topic, count in counts.items() if count < to}
    if few:
        async with _admin(settings) as admin:
            await admin.create_partitions(few)
    return few.keys()


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    bootstrap, client_id = settings.kafka_bootstrap, "billing-partitions"
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap, client_id=client_id, request_timeout_ms=REQUEST_TIMEOUT_MS
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            await admin.start()
            yield admin
    except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
        raise LogAway(f"{settings.kafka_bootstrap}: {error or type(error).__name__}") from error
    finally:
        with suppress(kafka_errors.KafkaError, OSError):
            await admin.close()
