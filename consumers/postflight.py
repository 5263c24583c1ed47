"""Post-flight: completed usage into settled sessions and double-entry books in PostgreSQL.

Group `billing-postflight`, topic `usage.events`. Needs Kafka and PostgreSQL.
"""

from __future__ import annotations

import asyncio
import sys

from billing.ledger.database import open_pool
from billing.ledger.plan import settlement_plan
from billing.process import Process, exit_code, refuse_other_homes, run_process
from billing.stream.catalogue import LiveCatalogue
from billing.stream.kafka import kafka_group
from billing.stream.kafka_reader import LogReader
from billing.stream.runner import Runner

FETCH_BYTES = 2 * 2**20  # of a backlog about as many records as a batch has
CONNECTIONS = 8  # batches under way at once; with fewer, lanes wait for one while PostgreSQL has nothing to do


async def postflight(process: Process) -> int:
    """Until asked to stop; exit code."""
    settings, topics = process.settings, process.settings.topics
    pool = await open_pool(settings.postgres_dsn, max_size=CONNECTIONS, application_name="billing-postflight")
    try:
        async with LogReader(settings.kafka_bootstrap, client_id="billing-postflight-reader") as reader:
            live = LiveCatalogue(reader, topics.tariffs)
            plan = settlement_plan(settings, pool, reader, live, group="postflight")
            group = kafka_group(
                settings.kafka_bootstrap,
                plan.group,
                plan.topics,
                client_id="billing-postflight",
                fetch_bytes=FETCH_BYTES,
            )
            async with live.following() as following:
                if await process.until_stopping(live.ready(following)) is None:
                    return 0
                refuse_other_homes(live.catalogue, settings)
                return exit_code(await process.run(Runner(plan, group), following))
    finally:
        await asyncio.wait_for(pool.close(), timeout=5)


def main() -> int:
    """Entry point of `python -m consumers.postflight`."""
    return run_process("postflight", postflight)


if __name__ == "__main__":
    sys.exit(main())
