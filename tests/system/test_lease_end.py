"""A call whose completion never comes, in a partition where nothing else happens: its owner's ticks carry log time past
the lease's end (S24); a completion that comes later still settles (S23)."""

from __future__ import annotations

import pytest
from reconcile_harness import Deployment, deployed
from usage_builders import CALL, STARTED, call, started

from billing.lab.waiting import until
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.usage.ops import CALL_LEASE_MS
from schemas.signals import HoldExpired, Signal, decode_signal

pytestmark = pytest.mark.slow

PRICE = 22_000  # a minute to +1202


async def _signals(deployment: Deployment, account: str) -> list[Signal]:
    topic, home = deployment.settings.topics.signals, deployment.home(account)
    async with LogReader(deployment.settings.kafka_bootstrap) as log:
        end = (await log.bounds(topic, home)).end
        found = [decode_signal(record.value) async for record in log.read(topic, home, 0, end)]
    return [signal for signal in found if signal.account == account]


async def test_s24_s23_an_idle_partition_s_lease_ends_in_log_time_and_a_late_completion_settles(
    settings: Settings,
) -> None:
    async with deployed(settings) as deployment:
        deployment.start()
        account = await deployment.open()
        await deployment.publish(account, STARTED, started(call_id="lost"))
        await deployment.until_settled()
        assert [hold.session for hold in await deployment.holds(account)] == ["lost"]

        async def released() -> bool:
            return not await deployment.holds(account)

        await until(released, "the end of the lease", timeout_seconds=CALL_LEASE_MS / 1000 + 60, every_seconds=1)
        assert deployment.running()
        ended = [signal for signal in await _signals(deployment, account) if isinstance(signal, HoldExpired)]
        assert [signal.session for signal in ended] == ["lost"]
        await deployment.publish(account, CALL, call(call_id="lost"))
        await deployment.until_settled()
        balance = await deployment.balance(account)
        assert (balance.used_micros, balance.held_micros) == (PRICE, 0)
        assert (await deployment.reconcile()).agreed
