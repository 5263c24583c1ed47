"""Partitions added to a topic under running consumers: they refuse to go on, and what they had is exact; a command
takes the deployment over to the new number (S16)."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from system_harness import MakeTraffic, RunPipeline

from billing.lab.population import demo_accounts
from billing.lab.prepare import committed_accounts, open_accounts
from billing.lab.publisher import Publisher, publish_for
from billing.lab.supervise import operators_environment
from billing.lab.traffic import Mix
from billing.lab.waiting import until
from billing.operations import NotPrepared, migrate
from billing.settings import Settings

pytestmark = pytest.mark.slow


async def _add_partitions(settings: Settings, topic: str, total: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(total)})
    finally:
        await admin.close()


async def _partitions_migrate(settings: Settings, to: int, *, kill_after: str = "") -> tuple[int | None, str]:
    """`billing partitions migrate`, ended by SIGKILL once it has said `kill_after`. Exit code, output."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from billing.cli import main; main()"),
        *("partitions", "migrate", "--to", str(to), "--apply"),
        env=operators_environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert command.stdout is not None
    said = ""
    async with asyncio.timeout(60):
        async for line in command.stdout:
            said += line.decode()
            if kill_after and line.decode().startswith(kill_after):
                command.kill()
        return await command.wait(), said


async def test_s16_partitions_added_refuse_to_run_and_records_of_another_partitioner_are_dead_letters(
    settings: Settings, make_traffic: MakeTraffic, run_pipeline: RunPipeline
) -> None:
    """A tenth of the records is poison, some of it in a partition that is not its account's home."""
    traffic = make_traffic(16, Mix(poison=0.1))
    async with run_pipeline(settings) as pipeline:
        await open_accounts(settings, committed_accounts())
        async with Publisher(settings.kafka_bootstrap, settings.topics.usage) as publisher:
            await publish_for(publisher, traffic, seconds=2, rate=800)
        ends = await pipeline.usage_ends()
        await pipeline.until_applied(ends)
        assert traffic.expected.dead_letters()["wrong_partition"] > 0
        found = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert found.failed == []
        await _add_partitions(settings, settings.topics.usage, settings.partitions + 4)
        refusing = [pipeline.supervisor.consumers[name] for name in ("inflight", "postflight")]
        await until(lambda: not any(each.running for each in refusing), "both refusing", timeout_seconds=90)
        assert [each.exit_code for each in refusing] == [2, 2]
        for each in refusing:
            assert "8 expected" in "\n".join(each.last_lines()), each.last_lines()
        refused = await migrate(settings)
        assert isinstance(refused, NotPrepared)
        assert f"{settings.topics.usage}" in refused.reason
        still = await pipeline.compare(traffic.expected, demo_accounts(), ends)
        assert still.failed == []
        pipeline.supervisor._expected_dead.update(each.name for each in refusing)
    to = settings.partitions + 4
    killed, said = await _partitions_migrate(settings, to, kill_after="moved")
    assert killed == -signal.SIGKILL, said
    done, said = await _partitions_migrate(settings, to)
    assert done == 0, said
    more, accounts = replace(settings, partitions=to), demo_accounts()
    again = make_traffic(17, Mix(poison=0.1), to)
    again.expected = traffic.expected  # the sessions of before go on to count, and their holds
    async with run_pipeline(more) as pipeline:
        async with Publisher(more.kafka_bootstrap, more.topics.usage) as publisher:
            await publish_for(publisher, again, seconds=2, rate=800)
        ends = await pipeline.usage_ends()
        assert min(ends.values()) > 0
        await pipeline.until_applied(ends)
        found = await pipeline.compare(traffic.expected, accounts, ends)
        assert found.failed == []
