"""Whole deployments for system tests: migrated, with tariffs, consumers as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from system_harness import MakeTraffic, PrivateServers, RunPipeline

from billing.devstack.server import Server
from billing.lab.oracle import Oracle
from billing.lab.pipeline import Pipeline, running_pipeline
from billing.lab.population import PLANS, demo_accounts, tariff_file
from billing.lab.prepare import prepare
from billing.lab.traffic import Mix, Traffic
from billing.settings import Settings


@pytest.fixture
def make_traffic() -> MakeTraffic:
    """`make_traffic(seed)`: the demo's traffic over its 200 accounts."""

    def make(seed: int, mix: Mix | None = None, partitions: int = 8) -> Traffic:
        oracle = Oracle([(plan, tariff_file(plan)) for plan in PLANS])
        return Traffic(seed, demo_accounts(), oracle, partitions, mix)

    return make


@pytest.fixture
def run_pipeline(tmp_path: Path) -> RunPipeline:
    """`run_pipeline(settings, each=1)`: migrate, load the tariffs, run the consumers."""

    @asynccontextmanager
    async def run(settings: Settings, *, each: int = 1) -> AsyncIterator[Pipeline]:
        await prepare(settings)
        async with running_pipeline(settings, tmp_path / "logs", each=each) as pipeline:
            yield pipeline

    return run


@pytest.fixture
def private_servers(
    private_kafka: Callable[..., Server],
    private_valkey: Callable[..., Server],
    private_postgres: Callable[..., Server],
) -> PrivateServers:
    """Settings for servers of this test's own, and the servers. PostgreSQL commits durably, so that it may crash."""
    servers = [private_valkey(), private_postgres(durable=True), private_kafka()]
    redis, postgres, kafka = servers
    return Settings(kafka_bootstrap=kafka.url, redis_url=redis.url, postgres_dsn=postgres.url), servers
