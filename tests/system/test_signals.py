"""Signals of a deployment whose in-flight consumer is killed in the middle: what is true is told, nothing else."""

from __future__ import annotations

import time
from collections import defaultdict

import pytest
from system_harness import RunPipeline

from billing.lab.pipeline import Pipeline
from billing.lab.prepare import open_accounts
from billing.lab.waiting import until
from billing.lab.wire import envelope, message
from billing.ledger.terms import NewAccount
from billing.settings import Settings
from billing.stream.publisher import Outgoing, Publisher
from billing.usage.partitioner import home_partition
from schemas.signals import BalanceExhausted, BalanceLow, Signal, decode_signal

LOOKUP_MICROS = 8_000  # us-standard, one look-up
ACCOUNTS = [f"signalled-{number:02d}" for number in range(24)]
CREDIT_MICROS = 100 * LOOKUP_MICROS
BELOW_MICROS = 50 * LOOKUP_MICROS


def _used(number: int) -> int:
    """Look-ups of an account: a third stays fine, a third becomes low, a third exhausted."""
    return (40, 60, 100)[number % 3]


async def _signals(pipeline: Pipeline) -> dict[str, list[Signal]]:
    """All that is in the topic, by account; each in its account's home partition."""
    settings, found = pipeline.settings, defaultdict(list)
    topic = settings.topics.signals
    for partition in range(settings.partitions):
        end = (await pipeline.log.bounds(topic, partition)).end
        async for record in pipeline.log.read(topic, partition, 0, end):
            signal = decode_signal(record.value)
            assert record.key == signal.account.encode()
            assert home_partition(signal.account, settings.partitions) == partition
            found[signal.account].append(signal)
    return found


@pytest.mark.slow
async def test_s25_s04_low_and_exhausted_accounts_are_signalled_though_the_owner_is_killed(
    settings: Settings, run_pipeline: RunPipeline
) -> None:
    async with run_pipeline(settings) as pipeline, Publisher(settings.kafka_bootstrap) as publisher:
        new = [
            NewAccount(
                name,
                currency="USD",
                plan="us-standard",
                credit_micros=CREDIT_MICROS,
                recharge_below_micros=BELOW_MICROS,
                recharge_by_micros=1_000_000,
                customer="cus_none",
                payment_method="pm_none",
            )
            for name in ACCOUNTS
        ]
        await open_accounts(settings, new)
        for times in range(100):
            if times == 55:
                await pipeline.supervisor.kill("inflight")
                pipeline.supervisor.restart("inflight")
            await publisher.publish(_lookups(settings, times))
        await pipeline.until_applied(await pipeline.usage_ends())
        wanted = {name for number, name in enumerate(ACCOUNTS) if _used(number) > 40}

        async def told() -> bool:
            return {name for name, signals in (await _signals(pipeline)).items() if signals} >= wanted

        await until(told, "a signal of every account that is low")
        found = await _signals(pipeline)
    for number, name in enumerate(ACCOUNTS):
        kinds = {type(signal) for signal in found[name]}
        assert kinds == {40: set(), 60: {BalanceLow}, 100: {BalanceLow, BalanceExhausted}}[_used(number)], name
        for signal in found[name]:
            assert isinstance(signal, BalanceLow | BalanceExhausted)
            assert signal.level_micros < BELOW_MICROS
            assert (signal.available_micros <= 0) >= isinstance(signal, BalanceExhausted)


def _lookups(settings: Settings, times: int) -> list[Outgoing]:
    made = []
    for number, account in enumerate(ACCOUNTS):
        if times < _used(number):
            item = {"item_id": f"i{times}", "sku": "lookup", "quantity": 1}
            attributes = envelope("usage.item.completed.v1", f"e{times}", account, int(time.time() * 1000))
            record = message(attributes, item, "structured")
            made.append(Outgoing(settings.topics.usage, record.value or b"", record.key, tuple(record.headers)))
    return made
