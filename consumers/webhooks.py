"""Webhooks: the gateway's own word that a payment changed, or that money went back, over HTTP.

Needs PostgreSQL and the payment gateway. No charge or credit needs it to be right, only to be seen sooner; refunds and
disputes are booked by it: as webhooks tell of them, and by a sweep of the gateway's lists at the start and then every
BILLING_WEBHOOK_SWEEP_SECONDS. BILLING_STRIPE_WEBHOOK_SECRET is required.
"""

from __future__ import annotations

import asyncio
import sys

import structlog

from billing.ledger.database import open_pool
from billing.listening import CannotListen
from billing.process import Process, Refusal, run_process
from billing.recharge.counted_gateway import CountedGateway
from billing.recharge.payments import PaymentSweep
from billing.recharge.store import RechargeStore
from billing.recharge.stripe_gateway import StripeGateway
from billing.settings import SettingError
from billing.stream.backoff import SystemClock
from billing.webhooks.http import Endpoint, serving
from billing.webhooks.notices import Notices
from billing.webhooks.settings import WebhookSettings
from billing.webhooks.sweep import Sweep
from billing.webhooks.taken_back import StripeGoneBack

log = structlog.get_logger(__name__)

CONNECTIONS = 8
GATEWAY_DEADLINE_MS = 10_000


async def webhooks(process: Process) -> int:
    """Until asked to stop; exit code."""
    try:
        own = WebhookSettings.from_env()
    except SettingError as error:
        raise Refusal(str(error)) from error
    pool = await open_pool(process.settings.postgres_dsn, max_size=CONNECTIONS, application_name="billing-webhooks")
    payments = StripeGateway(own.stripe, deadline_ms=GATEWAY_DEADLINE_MS)
    gone_back = StripeGoneBack(own.stripe, deadline_ms=GATEWAY_DEADLINE_MS)
    try:
        store, gateway = RechargeStore(pool), CountedGateway(payments)
        notices = Notices(store, gateway, gone_back, PaymentSweep(store, gateway, SystemClock()))
        sweep = Sweep(store, gone_back, notices, SystemClock(), window_days=own.sweep_days)
        async with serving(Endpoint(notices, own.secrets), own.host, own.port) as port:
            log.info("webhooks.listening", host=own.host, port=port)
            process.health = lambda: {"healthy": True, "webhook_port": port, "last_sweep": sweep.last}
            sweeping = asyncio.create_task(sweep.run(own.sweep_every_s), name="sweep")
            try:
                await process.stopping.wait()
            finally:
                sweeping.cancel()
                await asyncio.wait({sweeping})
    except CannotListen as error:
        raise Refusal(str(error)) from error
    finally:
        await payments.close()
        await gone_back.close()
        await asyncio.wait_for(pool.close(), timeout=5)
    return 0


def main() -> int:
    """Entry point of `python -m consumers.webhooks`."""
    return run_process("webhooks", webhooks)


if __name__ == "__main__":
    sys.exit(main())
