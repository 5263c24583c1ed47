"""The fixtures that every integration test leans on."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from billing.devstack.isolation import isolated
from billing.devstack.kafka import KafkaServer
from billing.devstack.postgres import PostgresServer
from billing.devstack.services import Services
from billing.devstack.valkey import ValkeyServer
from billing.settings import Settings


async def test_settings_are_a_namespace_with_an_empty_database(settings: Settings) -> None:
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        tables = await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'")
    finally:
        await connection.close()
    assert tables == 0
    assert settings.topics.usage == f"{settings.namespace}.usage.events"


async def test_a_namespace_leaves_nothing_behind(services: Services) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=services.kafka_bootstrap)
    client = Redis.from_url(services.redis_url)
    await admin.start()
    try:
        async with isolated(services) as settings:
            await admin.create_topics([NewTopic(settings.topics.signals, num_partitions=1, replication_factor=1)])
            await client.set(f"{settings.key_prefix}:{{p0}}:meta", "x")
        assert settings.topics.signals not in await admin.list_topics()
        assert await client.keys(f"{settings.key_prefix}:*") == []
    finally:
        await admin.close()
        await client.aclose()
    connection = await asyncpg.connect(services.postgres_dsn)
    try:
        name = settings.namespace
        assert await connection.fetchval("select count(*) from pg_database where datname = $1", name) == 0
    finally:
        await connection.close()


async def test_private_valkey_keeps_port_and_data_over_a_restart(private_valkey: Callable[..., ValkeyServer]) -> None:
    server = private_valkey(config={"appendfsync": "always"})
    async with Redis.from_url(server.url) as client:
        await client.set("a", "1")
    url = server.url
    server.kill()
    assert not server.is_running
    await server.start_async()
    assert server.url == url
    async with Redis.from_url(url) as client:
        assert await client.get("a") == b"1"


async def test_a_paused_server_answers_again_once_resumed(private_valkey: Callable[..., ValkeyServer]) -> None:
    server = private_valkey()
    server.pause()
    assert not server.answers()
    server.resume()
    assert server.answers()


async def test_private_postgres_recovers_after_a_kill(private_postgres: Callable[..., PostgresServer]) -> None:
    server = private_postgres()
    connection = await asyncpg.connect(server.url)
    await connection.execute("create table kept (n int); insert into kept values (7)")
    server.kill()
    connection.terminate()
    await server.start_async()
    connection = await asyncpg.connect(server.url)
    try:
        assert await connection.fetchval("select n from kept") == 7
    finally:
        await connection.close()


@pytest.mark.slow
async def test_private_kafka_returns_after_a_kill(private_kafka: Callable[..., KafkaServer]) -> None:
    server = private_kafka()
    admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
    await admin.start()
    await admin.create_topics([NewTopic("kept", num_partitions=3, replication_factor=1)])
    await admin.close()
    server.kill()
    await server.start_async()
    admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
    await admin.start()
    try:
        assert "kept" in await admin.list_topics()
    finally:
        await admin.close()
