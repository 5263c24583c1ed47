"""A namespace of one's own on shared services: fresh topic, key and group prefixes and an empty database."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient

from billing.balance.client import open_client, primaries
from billing.devstack.services import Services, with_user
from billing.ledger.roles import scram_verifier
from billing.settings import Settings

LIMIT_S = 60.0
POLL_S = 0.02
SCAN_KEYS = 1000


@asynccontextmanager
async def isolated(services: Services, *, partitions: int = 8) -> AsyncIterator[Settings]:
    """Settings for a fresh namespace on these services; at the end its database, role, keys and topics are removed.

    Consumers are to run as a role of their own, which may not change what was booked, as they would in production;
    where the given user may not create roles, they run as that user.
    """
    namespace = f"t{secrets.token_hex(6)}"
    owner_dsn = _with_database(services.postgres_dsn, namespace)
    await _execute(services.postgres_dsn, f"CREATE DATABASE {namespace} TEMPLATE template0 STRATEGY WAL_LOG")
    password = secrets.token_hex(16)
    has_role = await _create_role(services.postgres_dsn, namespace, password)
    settings = Settings(
        kafka_bootstrap=services.kafka_bootstrap,
        redis_url=services.redis_url,
        postgres_dsn=with_user(owner_dsn, namespace, password) if has_role else owner_dsn,
        postgres_owner_dsn=owner_dsn,
        namespace=namespace,
        partitions=partitions,
    )
    try:
        yield settings
    finally:
        async with asyncio.timeout(LIMIT_S):
            await _execute(services.postgres_dsn, f"DROP DATABASE IF EXISTS {namespace} WITH (FORCE)")
            if has_role:
                await _execute(services.postgres_dsn, f"DROP ROLE IF EXISTS {namespace}")
            await delete_keys(settings)
            await _delete_topics(settings)


async def _create_role(dsn: str, name: str, password: str) -> bool:
    try:
        await _execute(dsn, f"CREATE ROLE {name} LOGIN PASSWORD '{scram_verifier(password)}'")
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=LIMIT_S, command_timeout=LIMIT_S)
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=5)


async def delete_keys(settings: Settings) -> None:
    """Remove the namespace's keys from Redis, in pieces."""
    client = open_client(settings.redis_url, timeout_s=LIMIT_S)
    try:
        for node in (await primaries(client)).values():
            cursor = 0
            while True:
                cursor, keys = await node.scan(cursor, match=f"{settings.key_prefix}:*", count=SCAN_KEYS)
                pipe = node.pipeline(transaction=False)
                for key in keys:  # one by one: of a cluster they are in several slots
                    pipe.unlink(key)
                await pipe.execute()
                if cursor == 0:
                    break
    finally:
        await client.aclose()


async def _delete_topics(settings: Settings) -> None:
    """Delete the namespace's topics and see them gone: a broker learns of what the controller did a moment later.

    The known names are deleted unseen, so that a topic made just before, of which the broker has not heard, is too.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap, request_timeout_ms=20_000)
    await admin.start()
    try:
        there = [*astuple(settings.topics), *await _topics_of(admin, settings.namespace)]
        while there:
            await admin.delete_topics(sorted(set(there)))
            if there := await _topics_of(admin, settings.namespace):
                await asyncio.sleep(POLL_S)
    finally:
        await admin.close()


async def _topics_of(admin: AIOKafkaAdminClient, namespace: str) -> list[str]:
    return [topic for topic in await admin.list_topics() if topic.startswith(f"{namespace}.")]


def _with_database(dsn: str, database: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))
