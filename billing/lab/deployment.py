"""Everything that a run of the demo consists of while it runs: consumers kept alive, gateway, observer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from billing.lab.keeper import Keeper, keeping
from billing.lab.observe import Observer, observing
from billing.lab.payments import Gateway, open_gateway
from billing.lab.pipeline import Pipeline, running_pipeline
from billing.lab.sandbox.process import SandboxProcess
from billing.lab.supervise import WITH_RECHARGE
from billing.settings import Settings

GATEWAY_DEADLINE_MS = 4_000  # of one call; what a dead worker had in hand is taken over a little later


@dataclass(frozen=True, slots=True)
class Deployment:
    """Of one run; its processes write into `logs`."""

    pipeline: Pipeline
    gateway: Gateway
    observer: Observer
    keeper: Keeper
    logs: Path


@asynccontextmanager
async def deployed(
    settings: Settings, logs: Path, accounts: Sequence[str], say: Callable[[str], None]
) -> AsyncIterator[Deployment]:
    """Sandbox and consumers run while the block does, whatever happens in it. The ledger has been migrated before."""
    async with AsyncExitStack() as cleanup:
        sandbox = await asyncio.to_thread(SandboxProcess, logs / "sandbox")
        cleanup.callback(sandbox.stop)
        extra = {
            "BILLING_STRIPE_API_BASE": sandbox.settings.api_base,
            "BILLING_STRIPE_API_KEY": sandbox.settings.api_key,
            "BILLING_GATEWAY_DEADLINE_MS": str(GATEWAY_DEADLINE_MS),
        }
        pipeline = await cleanup.enter_async_context(
            running_pipeline(settings, logs, kinds=WITH_RECHARGE, extra=extra)
        )
        gateway = await cleanup.enter_async_context(open_gateway(sandbox.settings))
        observer = await cleanup.enter_async_context(observing(pipeline, gateway, accounts))
        keeper = await cleanup.enter_async_context(keeping(pipeline.supervisor, say))
        yield Deployment(pipeline, gateway, observer, keeper, logs)
