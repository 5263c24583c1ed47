"""What figures hold for: the machine, versions, and the settings of the servers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from redis.asyncio import Redis

from billing.balance.client import server_version
from billing.devstack import versions
from billing.lab.bench.servers import Servers

LINGER = "group.coordinator.append.linger.ms"


async def conditions(servers: Servers, redis: Redis) -> dict[str, str]:
    """By name, in the order in which they are read."""
    connection = await asyncpg.connect(servers.settings.postgres_dsn, timeout=10)
    try:
        postgres = await connection.fetchval("show server_version")
    finally:
        await connection.close(timeout=5)
    clients = ", ".join(f"{name} {version(name)}" for name in ("aiokafka", "redis", "asyncpg", "uvloop"))
    return {
        "cores": str(os.cpu_count()),
        "processor": processor(),
        "Python": f"{platform.python_version()} ({clients})",
        "Kafka": f"{versions.KAFKA}, {LINGER} {await broker_setting(servers.settings.kafka_bootstrap, LINGER)}",
        "store": server_version(await redis.info("server")),
        "PostgreSQL": str(postgres).split()[0],
        **servers.stated,
    }


def processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


async def broker_setting(bootstrap: str, name: str) -> str:
    """One setting of the first broker, "unknown" where it has none of that name."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for response in await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")]):
            for _, _, _, _, entries in response.resources:
                for entry in entries:
                    if entry[0] == name:
                        return str(entry[1])
    finally:
        await admin.close()
    return "unknown"
