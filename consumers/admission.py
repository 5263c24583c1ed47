"""Admission: may this call, message or purchase begin, and how long does the balance last? Over HTTP.

Reads Redis for balances and Kafka for the catalogue; PostgreSQL only for the incarnation that Redis must have. It
answers from its first moment on, whatever is away: what is unknown is answered so, and decided by policy.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import structlog
from redis.exceptions import RedisError

from billing.admission.balances import Balances, QuickReads
from billing.admission.catalogue import KeptCatalogue
from billing.admission.http import serving
from billing.admission.identity import KnownIdentity
from billing.admission.lag import LogEnds
from billing.admission.log_ends import LogEndsReader
from billing.admission.service import Admission
from billing.admission.settings import AdmissionSettings
from billing.balance.client import Client, UnsupportedServer, check_server, open_client
from billing.ledger.database import open_pool
from billing.listening import CannotListen
from billing.process import Process, Refusal, quiet_collector, run_process
from billing.settings import SettingError
from billing.stream.kafka_reader import LogReader

log = structlog.get_logger(__name__)

SPARE_CONNECTIONS = 4
"""Beyond one for each partition: the probe, the look at the server's version, and those being closed."""


async def admission(process: Process) -> int:
    """Until asked to stop; exit code."""
    try:
        own = AdmissionSettings.from_env()
    except SettingError as error:
        raise Refusal(str(error)) from error
    settings, deadline_s = process.settings, own.deadline_ms / 1000
    client = open_client(
        own.redis_url or settings.redis_url,
        timeout_s=deadline_s,
        max_connections=settings.partitions + SPARE_CONNECTIONS,
    )
    pool = await open_pool(settings.postgres_dsn, max_size=1, application_name="billing-admission")
    try:
        async with (
            LogReader(settings.kafka_bootstrap, client_id="billing-admission-reader") as reader,
            LogReader(settings.kafka_bootstrap, client_id="billing-admission-ends", deadline_seconds=5) as ends_reader,
        ):
            catalogue = KeptCatalogue(reader, settings.topics.tariffs, on_read=quiet_collector)
            identity = KnownIdentity(pool)
            balances = Balances(
                QuickReads(client, settings.key_space, timeout_s=deadline_s),
                settings.topics,
                timeline=lambda: catalogue.current.timeline if catalogue.current else None,
                identity=lambda: identity.current,
                deadline_s=deadline_s,
            )
            ends = LogEnds(own.behind_ms)
            looking = LogEndsReader(ends_reader, settings.topics, settings.partitions, ends)
            service = Admission(lambda: catalogue.current, balances, ends, own.unknown, settings.partitions)
            process.health = lambda: {**service.health(), "catalogue_trouble": catalogue.trouble}
            async with serving(service, own.host, own.port) as port:
                log.info("admission.listening", host=own.host, port=port)
                background = (catalogue.run(), identity.run(), looking.run(), service.watch(), _check(client))
                await process.until_stopping(_together(*background))
            await balances.close()
            return 0
    except CannotListen as error:
        raise Refusal(str(error)) from error
    finally:
        await client.aclose()
        await asyncio.wait_for(pool.close(), timeout=5)


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """All of them until all have ended, one fails, or this is cancelled; none goes on after that."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _check(client: Client) -> None:
    """Ends once the server said what it is; refuses to go on with one that is not supported."""
    while True:
        try:
            log.info("redis.connected", server=await check_server(client))
        except (RedisError, OSError):
            await asyncio.sleep(1.0)
        except UnsupportedServer as error:
            raise Refusal(str(error)) from error
        else:
            return


def main() -> int:
    """Entry point of `python -m consumers.admission`."""
    return run_process("admission", admission)


if __name__ == "__main__":
    sys.exit(main())
