"""In-flight: usage events and ledger entries into live balances and holds in Redis/Valkey, signals out of them.

Group `billing-inflight`, `ledger.entries` before `usage.events`. Needs Kafka and Redis; the ledger only to derive
accounts whose balance is unknown, so PostgreSQL may be away.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from redis.exceptions import RedisError

from billing.balance.client import UnsupportedServer, check_server, open_client
from billing.balance.entries import EntriesInterpreter
from billing.balance.pipelined_calls import PipelinedFunctions
from billing.balance.publishing import SignalPublisher
from billing.balance.store import MAX_BATCH_OPS, RedisSink
from billing.ledger.database import open_pool
from billing.ledger.snapshots import LedgerReader
from billing.process import Process, Refusal, exit_code, refuse_other_homes, run_process
from billing.reconcile.passed import LogPassedHolds
from billing.stream.catalogue import LiveCatalogue
from billing.stream.kafka import kafka_group
from billing.stream.kafka_reader import LogReader
from billing.stream.plan import Plan
from billing.stream.publisher import Publisher
from billing.stream.runner import Runner
from billing.stream.ticks import Ticker
from billing.usage.classify import Classifier
from billing.usage.interpreters import UsageInterpreter
from billing.usage.live import LiveClassifier


async def inflight(process: Process) -> int:
    """Until asked to stop; exit code."""
    settings, topics = process.settings, process.settings.topics
    client = open_client(settings.redis_url)
    functions = PipelinedFunctions(client, settings.key_space)
    try:
        checked = await process.wait_for_server("redis", lambda: check_server(client), (RedisError, OSError))
    except UnsupportedServer as error:
        raise Refusal(str(error)) from error
    pool = await open_pool(settings.postgres_dsn, max_size=2, application_name="billing-inflight")
    try:
        async with (
            LogReader(settings.kafka_bootstrap, client_id="billing-inflight-reader") as reader,
            Publisher(settings.kafka_bootstrap, client_id="billing-inflight-ticks", deadline_seconds=5.0) as publisher,
            Publisher(settings.kafka_bootstrap, client_id="billing-inflight-signals", deadline_seconds=10.0) as outlet,
        ):
            live = LiveCatalogue(reader, topics.tariffs)
            classifier = Classifier(live.catalogue, settings.partitions)
            passed = LogPassedHolds(reader, topics.usage, classifier, lambda: live.catch_up(topics.tariffs))
            priced = LiveClassifier(live.catalogue, settings.partitions)
            signals = SignalPublisher(functions, topics.signals, outlet)
            plan = Plan(
                group=settings.group("inflight"),
                topics=(topics.entries, topics.usage),
                partitions=settings.partitions,
                sink=RedisSink(functions, topics, ledger=LedgerReader(pool), passed=passed, signals=signals),
                interpreters={
                    topics.entries: EntriesInterpreter(settings.partitions),
                    topics.usage: UsageInterpreter(priced, settings.generation_ms),
                },
                reader=reader,
                max_records={topics.entries: MAX_BATCH_OPS, topics.usage: MAX_BATCH_OPS},
                catch_up=live.catch_up,
                await_horizon=live.await_horizon,
                ticker=Ticker(publisher, topics.usage),
                tick_topic=topics.usage,
            )
            group = kafka_group(settings.kafka_bootstrap, plan.group, plan.topics, client_id="billing-inflight")
            async with live.following() as following:
                if checked is None or await process.until_stopping(live.ready(following)) is None:
                    return 0
                refuse_other_homes(live.catalogue, settings)
                signalling = asyncio.create_task(signals.run(), name="signals")
                background = asyncio.create_task(_first_of(following, signalling), name="background")
                try:
                    return exit_code(await process.run(Runner(plan, group), background))
                finally:
                    for task in (background, signalling):
                        task.cancel()
                    await asyncio.wait({background, signalling})
    finally:
        functions.close()
        await client.aclose()
        await asyncio.wait_for(pool.close(), timeout=5)


async def _first_of(*tasks: asyncio.Task[Any]) -> None:
    """Until one of them ends; what it failed with is raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def main() -> int:
    """Entry point of `python -m consumers.inflight`."""
    return run_process("inflight", inflight)


if __name__ == "__main__":
    sys.exit(main())
