"""Relay: the ledger's outbox to `ledger.entries`, the catalogue and its heartbeat to `billing.tariffs`.

Needs PostgreSQL and Kafka. Several may run side by side: partitions are shared by advisory locks.
"""

from __future__ import annotations

import asyncio
import sys

from billing.ledger.database import open_pool
from billing.ledger.history import Gate
from billing.ledger.outlet import KafkaOutlet
from billing.ledger.ownership import OtherPartitions
from billing.ledger.relay import Relay
from billing.process import Process, refusal, run_process
from billing.stream.kafka_reader import LogReader
from billing.stream.publisher import Publisher

CONNECTIONS = 4


async def relay(process: Process) -> int:
    """Until asked to stop; exit code."""
    settings = process.settings
    pool = await open_pool(settings.postgres_dsn, max_size=CONNECTIONS, application_name="billing-relay")
    try:
        async with (
            Publisher(settings.kafka_bootstrap, client_id="billing-relay") as publisher,
            LogReader(settings.kafka_bootstrap, client_id="billing-relay-reader") as reader,
        ):
            gate = Gate(pool, reader, settings.topics.entries)
            running = Relay(pool, KafkaOutlet(publisher), settings, gate=gate)
            process.health = lambda: {"healthy": True, "partitions": sorted(running.owned)}
            try:
                await running.run(process.stopping)
            except OtherPartitions as error:
                raise refusal(str(error)) from error
    finally:
        await asyncio.wait_for(pool.close(), timeout=5)
    return 0


def main() -> int:
    """Entry point of `python -m consumers.relay`."""
    return run_process("relay", relay)


if __name__ == "__main__":
    sys.exit(main())
