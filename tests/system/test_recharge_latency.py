"""How long it takes from usage that makes a balance low to the recharge read back; printed with -s."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest
from recharge_harness import recharging

from billing.lab.waiting import until
from billing.settings import Settings

RECHARGES = 240
EVERY_S = 0.25


@pytest.mark.slow
async def test_r3_hundreds_of_recharges_each_once_and_soon(settings: Settings, tmp_path: Path) -> None:
    async with recharging(settings, tmp_path) as deployment:
        accounts = [f"a{number:03d}" for number in range(RECHARGES)]
        await deployment.open(*accounts)
        began: dict[str, float] = {}
        confirmed: dict[str, float] = {}

        async def lower() -> None:
            for account in accounts:
                began[account] = time.time()
                await deployment.use(account, 2_400_000)
                await asyncio.sleep(EVERY_S)

        async def all_confirmed() -> bool:
            rows = await deployment.pool.fetch(
                "select account_id, extract(epoch from closed_at)::float8 as at from recharge_intents"
                " where state = 'confirmed'"
            )
            confirmed.update((row["account_id"], row["at"]) for row in rows)
            return len(confirmed) == RECHARGES

        await lower()
        await until(all_confirmed, "all recharges", timeout_seconds=90)
        seconds = sorted(confirmed[account] - began[account] for account in accounts)
        median, p99 = statistics.median(seconds), seconds[int(0.99 * len(seconds))]
        print(f"\n{RECHARGES} recharges: median {median:.3f} s, p99 {p99:.3f} s, longest {seconds[-1]:.3f} s")
        assert len(await deployment.charged()) == RECHARGES
        assert p99 < 30
