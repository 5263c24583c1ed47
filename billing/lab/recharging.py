"""The recharges of a run: adjustments that must charge nobody, waiting until all is done, and the evidence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from billing.cli.common import ledger
from billing.lab.books import Store
from billing.lab.expected import Expected
from billing.lab.payments import Gateway, GatewayAway
from billing.lab.pipeline import AWAY, Pipeline
from billing.lab.population import DemoAccount
from billing.lab.recharge_books import RechargeBooks, read_recharges
from billing.lab.recharge_checks import Evidence, forgotten_accounts
from billing.ledger.booking import Booked, adjust
from billing.settings import Settings

AUTHOR = "demo"
PATIENCE_SECONDS = 90.0
TRIES = 3
NOTHING = Store({}, {}, {})


class NotAdjusted(RuntimeError):
    """The ledger refused an adjustment."""


class Recharging:
    """Of one run. `adjusted` is what was taken from accounts by hand (micro-units, below 0)."""

    def __init__(self, accounts: Sequence[DemoAccount], expected: Expected) -> None:
        self.adjusted: dict[str, int] = {}
        self._accounts = accounts
        self._expected = expected

    async def adjust(self, settings: Settings) -> int:
        """Take so much from every account without usage that it is below its threshold, as `billing account adjust`
        does (S43). Returns how many. Raises NotAdjusted."""
        async with ledger(settings) as pool:
            for account in self._accounts:
                below = account.recharge_below_micros
                if not account.quiet or below is None or account.credit_micros < below:
                    continue
                taken = below // 2 - account.credit_micros
                answer = await adjust(pool, account.id, taken, "a correction of the demo's", author=AUTHOR)
                if not isinstance(answer, Booked):
                    raise NotAdjusted(f"{account.id}: {answer}")
                self.adjusted[account.id] = taken
        return len(self.adjusted)

    async def finish(self, pipeline: Pipeline, gateway: Gateway) -> bool:
        """Wait until whoever is low has a reason for it and no intent is open, then let the recharge consumer drain, so
        that nothing moves while the books are compared. Patience is bounded: what is then still open fails a check.
        Returns whether it drained by itself."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for last in (False,) * (TRIES - 1) + (True,):
            await self._until_done(pipeline, gateway, deadline)
            drained = await pipeline.supervisor.leave("recharge")
            if last or time.monotonic() >= deadline or not (await self._books(pipeline)).open:
                return drained
            pipeline.supervisor.restart("recharge")  # it had just begun another one
        return False

    async def credited(self, gateway: Gateway) -> dict[str, int]:
        """Account to what it must have got since it was opened: what the gateway received, less what was taken."""
        got = dict(self.adjusted)
        for payment in await gateway.payments():
            got[payment.account] = got.get(payment.account, 0) + payment.received_micros
        return got

    async def evidence(self, pipeline: Pipeline, gateway: Gateway, store: Store) -> Evidence:
        """All sides as they are now; `store` is Redis. Raises GatewayAway."""
        evidence = await self._evidence(pipeline, gateway, [account.id for account in self._accounts])
        return replace(evidence, attempts=await gateway.attempts(), store=store)

    async def _until_done(self, pipeline: Pipeline, gateway: Gateway, deadline: float) -> None:
        while time.monotonic() < deadline:
            with suppress(GatewayAway, *AWAY):
                evidence = await self._evidence(pipeline, gateway, [])
                if not evidence.books.open and not forgotten_accounts(evidence):
                    return
            await asyncio.sleep(0.25)

    async def _evidence(self, pipeline: Pipeline, gateway: Gateway, accounts: Sequence[str]) -> Evidence:
        return Evidence(
            accounts=self._accounts,
            payments=await gateway.payments(),
            attempts=[],
            books=await read_recharges(pipeline.books.pool, accounts),
            store=NOTHING,
            charged=self._expected.charged,
            adjusted=self.adjusted,
        )

    async def _books(self, pipeline: Pipeline) -> RechargeBooks:
        return await read_recharges(pipeline.books.pool, [])
