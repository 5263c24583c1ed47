"""The balance store breaks in mid-traffic, in the ways of July 2013: nobody is charged, nobody is suspended."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from recharge_harness import Recharging, recharging
from redis.asyncio import Redis

from billing.devstack.isolation import isolated
from billing.devstack.services import Services
from billing.devstack.valkey import ValkeyServer
from billing.lab.processes import Process
from billing.lab.supervise import operators_environment
from billing.lab.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

DETECTED_S = 3.0
TRAFFIC_S = 3.0
BILLING = Path(__file__).parents[2] / ".venv" / "bin" / "billing"


@dataclass
class OnOwnStore:
    """A deployment whose balance store is this module's own."""

    deployment: Recharging
    valkey: ValkeyServer

    async def do(self, *command: str | int) -> None:
        async with Redis.from_url(self.valkey.url, socket_timeout=10) as client:
            await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py

    async def billing(self, *words: str) -> None:
        """One command, as an operator would run it."""
        log = self.deployment.logs / f"{words[0]}.log"
        command = Process(words[0], [str(BILLING), *words], operators_environment(self.deployment.settings), log)
        command.start()
        await until(lambda: not command.running, f"billing {words[0]}", timeout_seconds=30)
        assert command.exit_code == 0, command.last_lines()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own(
    services: Services, module_valkey: Callable[..., ValkeyServer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OnOwnStore]:
    valkey, folder = module_valkey(), tmp_path_factory.mktemp("recharging")
    async with (
        isolated(services) as settings,
        recharging(replace(settings, redis_url=valkey.url), folder) as deployment,
    ):
        yield OnOwnStore(deployment, valkey)


async def _broken(deployment: Recharging, accounts: list[str], strike: Callable[[], object]) -> None:
    """Break the store; usage that lowers every account goes on, and signals say that all are low. Nobody is charged or
    suspended, and the refusals name the store within seconds."""
    known = {account: await deployment.known(account) for account in accounts}
    await asyncio.to_thread(strike) if not asyncio.iscoroutinefunction(strike) else await strike()
    struck_s = time.monotonic()
    await deployment.lower(*accounts)
    for account in accounts:
        await deployment.signal_low(account, 3, known[account])
    for account in accounts:
        await deployment.until_refused(account, "store_unhealthy", seconds=DETECTED_S)
    while time.monotonic() < struck_s + TRAFFIC_S:
        for account in accounts:
            await deployment.use(account, 80_000)
            await deployment.signal_low(account, 1, known[account])
        await asyncio.sleep(0.1)
    for account in accounts:
        assert await deployment.payments(account) == []
        assert await deployment.intents(account) == []
        assert (await deployment.account(account))["status"] == "open"


async def _charged_once(deployment: Recharging, accounts: list[str]) -> None:
    for account in accounts:
        # refusals during the outage back off for up to 30 s, and a claimed row is free again after 30 s
        await deployment.until_state(account, "confirmed", seconds=90)
    for account in accounts:
        await deployment.assert_one_charge(account)


async def test_s08_r1_r2_an_empty_store_that_is_a_replica_of_itself_charges_and_suspends_nobody(
    own: OnOwnStore,
) -> None:
    """July 2013. Recovered with the commands that an operator has, each account is charged once."""
    deployment, accounts = own.deployment, [f"s08-{number}" for number in range(6)]
    await deployment.open(*accounts)

    async def strike() -> None:
        await own.do("FLUSHALL")
        await own.do("FUNCTION", "FLUSH", "SYNC")
        await own.do("REPLICAOF", "127.0.0.1", own.valkey.port)

    await _broken(deployment, accounts, strike)
    await own.do("REPLICAOF", "NO", "ONE")
    await own.billing("migrate")
    await own.billing("rebuild", "--reason", "test")
    await _charged_once(deployment, accounts)


async def test_s44_a_config_set_that_turned_persistence_off_is_refused_by_name(own: OnOwnStore) -> None:
    deployment, accounts = own.deployment, ["s44"]
    await deployment.open(*accounts)

    async def strike() -> None:
        await own.do("CONFIG", "SET", "appendonly", "no")
        await asyncio.sleep(1.5)  # the guard looks once a second

    await _broken(deployment, accounts, strike)
    seen = await deployment.pool.fetchval(
        "select checks -> 0 -> 'seen' ->> 'health' from recharge_evaluations where account_id = 's44' and"
        " refusal = 'store_unhealthy' limit 1"
    )
    assert str(seen).startswith("persistence_off")
    await own.do("CONFIG", "SET", "appendonly", "yes")
    await _charged_once(deployment, accounts)


async def test_s09_a_store_that_restarted_empty_charges_nobody_until_it_is_rebuilt(own: OnOwnStore) -> None:
    deployment, accounts = own.deployment, [f"s09-{number}" for number in range(4)]
    await deployment.open(*accounts)

    def strike() -> None:
        own.valkey.kill()
        shutil.rmtree(own.valkey.directory / "data")
        own.valkey.start()

    await _broken(deployment, accounts, strike)
    await own.billing("migrate")
    await own.billing("rebuild", "--reason", "test")
    await _charged_once(deployment, accounts)
