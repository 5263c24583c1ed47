"""Reconciler: compares the two books without end; freezes, records and repairs accounts that differ.

Needs PostgreSQL, Redis and Kafka. Several may run: one acts, the others stand by. BILLING_RECONCILE_PER_SECOND bounds
the accounts per second of the background sweep.
"""

from __future__ import annotations

import asyncio
import sys

from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.ledger.database import open_pool
from billing.process import Process, Refusal, run_process
from billing.reconcile.reconciler import Reconciler
from billing.reconcile.reconciler_settings import per_second_from_env
from billing.settings import SettingError
from billing.stream.kafka_reader import LogReader

CONNECTIONS = 2


async def reconciler(process: Process) -> int:
    """Until asked to stop; exit code."""
    settings = process.settings
    try:
        per_second = per_second_from_env()
    except SettingError as error:
        raise Refusal(str(error)) from error
    pool = await open_pool(settings.postgres_dsn, max_size=CONNECTIONS, application_name="billing-reconciler")
    client = open_client(settings.redis_url)
    try:
        async with LogReader(settings.kafka_bootstrap, client_id="billing-reconciler") as reader:
            functions = Functions(client, settings.key_space)
            running = Reconciler(pool, functions, reader, settings, per_second=per_second)
            process.health = running.health
            await process.until_stopping(running.run(process.stopping))
    finally:
        await client.aclose()
        await asyncio.wait_for(pool.close(), timeout=5)
    return 0


def main() -> int:
    """Entry point of `python -m consumers.reconciler`."""
    return run_process("reconciler", reconciler)


if __name__ == "__main__":
    sys.exit(main())
