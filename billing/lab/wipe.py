"""July 2013 in the middle of a run: Redis is suddenly empty and a read-only replica of itself, while usage goes on.

What set off the charges then is done here on purpose: again and again every account with a card is signalled as low,
with a balance of zero, while nobody knows its balance. Then the store is recovered with what an operator has.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from billing.devstack.isolation import delete_keys
from billing.lab.observe import Observer
from billing.lab.payments import Gateway, Payment
from billing.lab.pipeline import Pipeline
from billing.lab.poison import home_partition
from billing.lab.population import DemoAccount
from billing.lab.processes import Process
from billing.lab.supervise import operators_environment
from billing.lab.waiting import WaitedTooLong, until
from billing.lab.wire import low_signal

UNDER_WAY_SECONDS = 1.0  # what had begun when it struck may end
SIGNALS_EVERY_SECONDS = 1.0
COMMAND_SECONDS = 120.0
RECOVERY_SECONDS = 60.0
BILLING = Path(sys.executable).with_name("billing")

_REFUSED = "select coalesce(sum(times), 0)::bigint from recharge_evaluations where refusal = any ($1)"
_STATUSES = "select count(*) from recharge_evaluations where stage in ('suspend', 'resume') and refusal is null"
WHILE_UNKNOWN = ("store_unhealthy", "balance_unknown")


class NotRecovered(RuntimeError):
    """An operator's command failed, or balances stayed unknown after it."""


@dataclass
class Damage:
    """What was seen between the wipe and the recovery; moments are `time.monotonic()`. `before`: the payments at the
    gateway once everything that was under way had ended; `after`: those of the last time that no balance was known."""

    struck: float = 0.0
    recovering: float = 0.0
    recovered: float = 0.0
    before: list[Payment] = field(default_factory=list)
    after: list[Payment] = field(default_factory=list)
    status_changes: int = 0
    refused: int = 0
    signals: int = 0
    settled: int = 0

    def summary(self, began: float) -> dict[str, float]:
        """The moments in seconds from `began`, and how often a recharge was asked for and refused."""
        moments = {"struck": self.struck, "recovering": self.recovering, "recovered": self.recovered}
        since = {name: moment - began for name, moment in moments.items()}
        return {**since, "signals": float(self.signals), "refused": float(self.refused)}


class Wipe:
    """One wipe of a run. `private`: the Redis is the run's own, so all of it is emptied and it becomes a replica of
    itself; on a given one only the namespace's keys go. `pretend` are the accounts that are signalled as low."""

    def __init__(
        self,
        pipeline: Pipeline,
        observer: Observer,
        gateway: Gateway,
        *,
        private: bool,
        pretend: Sequence[DemoAccount],
        logs: Path,
        say: Callable[[str], None],
    ) -> None:
        self.damage = Damage()
        self._pipeline = pipeline
        self._settings = pipeline.settings
        self._observer = observer
        self._gateway = gateway
        self._private = private
        self._pretend = pretend
        self._logs = logs
        self._say = say
        self._statuses = self._settled = self._suspended = 0

    def since(self) -> str:
        """What has been charged and suspended while balances are unknown; "" when they are known."""
        damage, newest = self.damage, self._observer.newest
        if not damage.struck or damage.recovered:
            return ""
        seconds = time.monotonic() - damage.struck
        charged = newest.charged - sum(payment.succeeded for payment in damage.before) if damage.before else 0
        suspended = newest.counts.suspended - self._suspended
        return f"wiped {seconds:.0f} s ago, since then charged {charged}, suspended {suspended}"

    async def run(self, hold_seconds: float) -> None:
        """Strike, hold for so long, recover, and wait until every balance is known again. Raises NotRecovered."""
        damage, pool = self.damage, self._pipeline.books.pool
        await self._strike()
        self._suspended, damage.struck = self._observer.newest.counts.suspended, time.monotonic()
        await asyncio.sleep(UNDER_WAY_SECONDS)
        damage.before = await self._gateway.payments()
        statuses, refused = await pool.fetchval(_STATUSES), await pool.fetchval(_REFUSED, list(WHILE_UNKNOWN))
        settled = sum((await self._pipeline.books.postflight_positions()).values())
        await self._signal_everyone(damage.struck + hold_seconds)
        damage.recovering = time.monotonic()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch_payments())
            await self._recover()
            await watching
        damage.recovered = time.monotonic()
        damage.refused = await pool.fetchval(_REFUSED, list(WHILE_UNKNOWN)) - refused
        damage.status_changes = self._statuses - statuses
        damage.settled = self._settled - settled
        self._say(f"every balance is known again, {damage.recovered - damage.struck:.1f} s after the wipe")

    # --- the blow ----------------------------------------------------------------------------------------------

    async def _strike(self) -> None:
        if not self._private:
            await delete_keys(self._settings)
            self._say("wiped: the namespace's keys are gone from the given Redis")
            return
        async with self._redis() as redis:
            port = (await redis.info("server"))["tcp_port"]
            await redis.flushall()
            await redis.function_flush("SYNC")  # a server that restarted empty has none
            await redis.replicaof("127.0.0.1", port)
        self._say("wiped: Redis is empty, and a read-only replica of itself")

    async def _signal_everyone(self, until_seconds: float) -> None:
        """Every account of `pretend` is low and has nothing: so says billing.signals, every second."""
        timeline = await self._pipeline.books.pool.fetchval("select timeline from ledger_meta")
        producer = AIOKafkaProducer(bootstrap_servers=self._settings.kafka_bootstrap, acks="all")
        await producer.start()
        try:
            while time.monotonic() < until_seconds:
                for account in self._pretend:
                    self.damage.signals += 1
                    now_ms = int(time.time() * 1000)
                    signal = low_signal(account.id, account.currency, timeline, self.damage.signals, now_ms)
                    await producer.send(
                        self._settings.topics.signals,
                        key=signal.key,
                        value=signal.value,
                        headers=list(signal.headers),
                        partition=home_partition(account.id, self._settings.partitions),
                    )
                await producer.flush()
                await asyncio.sleep(min(SIGNALS_EVERY_SECONDS, max(0.0, until_seconds - time.monotonic())))
        finally:
            await producer.stop()

    async def _watch_payments(self) -> None:
        """Until a balance is known: what the gateway has, looked at while none was."""
        pool, books = self._pipeline.books.pool, self._pipeline.books
        while True:
            payments, statuses = await self._gateway.payments(), await pool.fetchval(_STATUSES)
            settled = sum((await books.postflight_positions()).values())
            known, _ = await self._observer.balances()
            if known:
                return
            self.damage.after, self._statuses, self._settled = payments, statuses, settled
            await asyncio.sleep(0.1)

    # --- the recovery ------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        if self._private:
            self._say("$ valkey-cli REPLICAOF NO ONE")
            async with self._redis() as redis:
                await redis.replicaof("NO", "ONE")
            await self._billing("migrate")  # the functions are gone too
        await self._billing("rebuild", "--reason", "wiped by the demo")

        async def all_known() -> bool:
            known, unknown = await self._observer.balances()
            return known > 0 and not unknown

        try:
            await until(all_known, "balances were to be known again", timeout_seconds=RECOVERY_SECONDS)
        except WaitedTooLong as error:
            raise NotRecovered(str(error)) from None

    async def _billing(self, *words: str) -> None:
        """One command, as an operator would run it."""
        self._say(f"$ billing {' '.join(words)}")
        command = Process(
            words[0], [str(BILLING), *words], operators_environment(self._settings), self._logs / f"{words[0]}.log"
        )
        command.start()
        try:
            await until(lambda: not command.running, f"billing {words[0]}", timeout_seconds=COMMAND_SECONDS)
        except WaitedTooLong as error:
            raise NotRecovered(str(error)) from None
        finally:
            await command.kill()
        said = ", ".join(" ".join(line.split()) for line in command.last_lines(6))
        if command.exit_code != 0:
            raise NotRecovered(f"billing {words[0]} ended with exit code {command.exit_code}: {said}")
        self._say(f"  {said}")

    def _redis(self) -> Redis:
        return Redis.from_url(self._settings.redis_url, socket_timeout=30, socket_connect_timeout=10)
