"""Recharge: signals into due rows, and the worker that evaluates them, charges cards and books the credits.

Group `billing-recharge`, topic `billing.signals`. Needs PostgreSQL, Redis, Kafka and the payment gateway; while one of
them is away nobody is charged. BILLING_STRIPE_API_BASE and BILLING_STRIPE_API_KEY are required.
"""

from __future__ import annotations

import asyncio
import sys

from billing.balance.calls import Functions
from billing.balance.client import Client, open_client
from billing.balance.proof import Durability
from billing.guard.watch import guarding
from billing.ledger.database import Pool, open_pool
from billing.process import Process, Refusal, exit_code, run_process
from billing.recharge.balances import Balances
from billing.recharge.counted_gateway import CountedGateway
from billing.recharge.due_sink import DueSink, SignalInterpreter
from billing.recharge.store import RechargeStore
from billing.recharge.stripe_gateway import StripeGateway
from billing.recharge.worker import Worker
from billing.recharge.worker_settings import WorkerSettings
from billing.settings import SettingError, Settings
from billing.stream.backoff import SystemClock
from billing.stream.kafka import kafka_group
from billing.stream.kafka_reader import LogReader
from billing.stream.plan import Plan
from billing.stream.runner import Runner

CONNECTIONS = 12
DISCOVERY_TIMEOUT_S = 2.0


async def recharge(process: Process) -> int:
    """Until asked to stop; exit code."""
    settings = process.settings
    try:
        asked = WorkerSettings.from_env()
    except SettingError as error:
        raise Refusal(str(error)) from error
    pool = await open_pool(settings.postgres_dsn, max_size=CONNECTIONS, application_name="billing-recharge")
    client = open_client(settings.redis_url)
    gateway = StripeGateway(asked.stripe, deadline_ms=asked.timing.gateway_deadline_ms)
    try:
        async with (
            guarding(settings) as guard,
            LogReader(settings.kafka_bootstrap, client_id="billing-recharge-reader") as reader,
        ):
            balances = Balances(
                Functions(client, settings.key_space),
                settings.topics,
                guard=guard,
                discover=lambda: _discover(settings),
                clock=SystemClock(),
                durability=Durability(settings.proof_replicas, settings.proof_aof),
            )
            worker = Worker(RechargeStore(pool, asked.limits), CountedGateway(gateway), balances, asked.timing)
            return await _run(process, pool, reader, worker)
    finally:
        await gateway.close()
        await client.aclose()
        await asyncio.wait_for(pool.close(), timeout=5)


async def _run(process: Process, pool: Pool, reader: LogReader, worker: Worker) -> int:
    settings, topic = process.settings, process.settings.topics.signals
    plan = Plan(
        group=settings.group("recharge"),
        topics=(topic,),
        partitions=settings.partitions,
        sink=DueSink(pool, settings, on_due=worker.wake),
        interpreters={topic: SignalInterpreter()},
        reader=reader,
    )
    group = kafka_group(settings.kafka_bootstrap, plan.group, plan.topics, client_id="billing-recharge")
    working = asyncio.create_task(worker.run(), name="worker")
    try:
        return exit_code(await process.run(Runner(plan, group), working))
    finally:
        working.cancel()
        await asyncio.wait({working})
        await worker.finish()


def _discover(settings: Settings) -> Client:
    """A new client, for a proof's second look: of Sentinel and Cluster a majority must name the primary (S49)."""
    return open_client(settings.redis_url, timeout_s=DISCOVERY_TIMEOUT_S, max_connections=1, majority=True)


def main() -> int:
    """Entry point of `python -m consumers.recharge`."""
    return run_process("recharge", recharge)


if __name__ == "__main__":
    sys.exit(main())
