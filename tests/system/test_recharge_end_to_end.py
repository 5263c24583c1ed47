"""A low balance leads to exactly one charge, through real processes."""

from __future__ import annotations

from pathlib import Path

from recharge_harness import UNIT, recharging

from billing.settings import Settings


async def test_r2_r3_a_low_balance_is_charged_once_booked_once_and_read_back(
    settings: Settings, tmp_path: Path
) -> None:
    async with recharging(settings, tmp_path) as deployment:
        await deployment.open("acme")
        await deployment.lower("acme")
        await deployment.until_state("acme", "confirmed")
        await deployment.assert_one_charge("acme")
        (payment,) = await deployment.charged("acme")
        row = await deployment.account("acme")
        assert payment["metadata"] == {"account": "acme", "episode": "1", "timeline": payment["metadata"]["timeline"]}
        assert (payment["customer"], payment["payment_method"]) == (row["customer"], row["payment_method"])
        assert row["payment_method"] != "pm_card_visa"  # saved with the customer, under an id of its own
        known = await deployment.balance("acme")
        assert known.level_micros == (12 + 20) * UNIT - 2_400_000
