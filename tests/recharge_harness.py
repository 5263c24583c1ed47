"""A whole deployment that recharges: consumers and workers as processes, the sandbox as the gateway, real servers."""

from __future__ import annotations

import asyncio
import itertools
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from billing.balance.balances import Known
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.reader import BalanceReader
from billing.lab.books import Books, open_books
from billing.lab.prepare import open_accounts, prepare
from billing.lab.sandbox.process import SandboxProcess
from billing.lab.supervise import Consumer
from billing.lab.waiting import until
from billing.lab.wire import envelope, message
from billing.ledger.database import Pool, open_pool
from billing.ledger.terms import NewAccount
from billing.ledger.verify import verify
from billing.settings import Settings
from billing.usage.partitioner import home_partition
from schemas.common import CLOUDEVENTS_HEADERS
from schemas.signals import BalanceLow, encode_signal

UNIT = 1_000_000
LOOKUP_MICROS = {"USD": 8_000, "EUR": 7_000}
PLANS = {"USD": "us-standard", "EUR": "eu-standard"}
BOOKKEEPERS = ("relay", "inflight", "postflight")
GATEWAY_DEADLINE_MS = 1_500  # a lease is 3 s longer


@dataclass
class Recharging:
    """`workers` are started by tests that want their own; `worker` is the one that runs from the beginning."""

    settings: Settings
    sandbox: SandboxProcess
    logs: Path
    pool: Pool
    producer: AIOKafkaProducer
    books: Books
    reader: BalanceReader
    consumers: dict[str, Consumer] = field(default_factory=dict)
    numbers: Any = field(default_factory=itertools.count)
    currencies: dict[str, str] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)

    @property
    def worker(self) -> Consumer:
        return self.consumers["recharge"]

    async def add_worker(self, name: str, **environ: str) -> Consumer:
        """Another recharge process, ready."""
        gateway = {
            "BILLING_STRIPE_API_BASE": self.sandbox.settings.api_base,
            "BILLING_STRIPE_API_KEY": self.sandbox.settings.api_key,
            "BILLING_GATEWAY_DEADLINE_MS": str(GATEWAY_DEADLINE_MS),
            **environ,
        }
        worker = self.consumers[name] = Consumer(name, "recharge", self.settings, self.logs, gateway)
        worker.start()
        await worker.ready()
        return worker

    async def open(
        self,
        *accounts: str,
        credit: int = 12,
        payment_method: str | None = "pm_card_visa",
        currency: str = "USD",
        **terms: Any,
    ) -> None:
        """Accounts with a card: recharged by 20.00 below 10.00; `credit` in whole units."""
        card: dict[str, Any] = {
            "recharge_below_micros": 10 * UNIT,
            "recharge_by_micros": 20 * UNIT,
            "payment_method": payment_method,
            **terms,
        }
        self.currencies |= dict.fromkeys(accounts, currency)
        new = [NewAccount(a, currency, PLANS[currency], credit_micros=credit * UNIT, **card) for a in accounts]
        await open_accounts(self.settings, new)

    async def use(self, account: str, amount_micros: int) -> float:
        """Usage of that much, acknowledged by Kafka; the moment before it was sent (`time.monotonic()`)."""
        quantity, rest = divmod(amount_micros, LOOKUP_MICROS[self.currencies[account]])
        assert not rest
        number = next(self.numbers)
        item = {"item_id": f"i{number}", "sku": "lookup", "quantity": quantity}
        attributes = envelope("usage.item.completed.v1", f"e{number}", account, int(time.time() * 1000))
        record = message(attributes, item, "structured")
        self.used[account] += amount_micros
        began_s = time.monotonic()
        await self.producer.send_and_wait(
            self.settings.topics.usage, value=record.value, key=record.key, headers=list(record.headers)
        )
        return began_s

    async def lower(self, *accounts: str) -> None:
        """Bring accounts of 12.00 to 9.60 (euros: 9.599): below their threshold."""
        amount_micros = {"USD": 2_400_000, "EUR": 2_401_000}
        await asyncio.gather(*(self.use(account, amount_micros[self.currencies[account]]) for account in accounts))

    # --- what came of it ------------------------------------------------------------------------------------

    async def payments(self, account: str | None = None) -> list[dict[str, Any]]:
        """What the gateway lists, newest first."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = await asyncio.to_thread(
                self.sandbox.controls._ask, "GET", f"/v1/payment_intents?limit=100{after}"
            )
            found += page["data"]
            if not page["has_more"]:
                break
            after = f"&starting_after={page['data'][-1]['id']}"
        return [p for p in found if account is None or p["metadata"].get("account") == account]

    async def charged(self, account: str | None = None) -> list[dict[str, Any]]:
        """The payments that moved money."""
        return [p for p in await self.payments(account) if p["status"] == "succeeded"]

    async def charges(self, account: str) -> list[str]:
        """Every attempt to charge the account's card, by its status."""
        lists = [
            await asyncio.to_thread(self.sandbox.controls.charges, p["id"]) for p in await self.payments(account)
        ]
        return [status for each in lists for status in each]

    async def intents(self, account: str) -> list[Any]:
        return await self.pool.fetch("select * from recharge_intents where account_id = $1 order by id", account)

    async def states(self, account: str) -> list[str]:
        return [row["state"] for row in await self.intents(account)]

    async def until_state(self, account: str, *states: str, seconds: float = 20) -> None:
        """Until the account's intents are in exactly these states, the oldest first."""

        async def reached() -> bool:
            return await self.states(account) == list(states)

        await until(reached, f"{account}: {', '.join(states)}", timeout_seconds=seconds, every_seconds=0.02)

    async def until_refused(self, account: str, refusal: str, seconds: float = 20) -> None:
        """Until some check of the account was refused so."""

        async def refused() -> bool:
            return refusal in await self.refusals(account)

        await until(refused, f"{account}: {refusal}", timeout_seconds=seconds, every_seconds=0.05)

    async def refusals(self, account: str) -> list[str]:
        rows = await self.pool.fetch(
            "select refusal from recharge_evaluations where account_id = $1 and refusal is not null order by id",
            account,
        )
        return [row["refusal"] for row in rows]

    async def account(self, account: str) -> Any:
        return await self.pool.fetchrow(
            "select * from accounts a join balances b on b.account_id = a.id where a.id = $1", account
        )

    async def balance(self, account: str) -> Any:
        return await self.reader.read_balance(account)

    async def credits(self, account: str) -> list[int]:
        """The amounts of the entries that credited recharges."""
        rows = await self.pool.fetch(
            "select p.amount_micros from journal j join postings p on p.journal_id = j.id and p.account_id = $1"
            " where j.account_id = $1 and j.origin = 'recharge' order by j.id",
            account,
        )
        return [row["amount_micros"] for row in rows]

    async def until_booked(self, account: str) -> None:
        """Until both books have all usage, and the same level."""

        async def same() -> bool:
            row, known = await self.account(account), await self.balance(account)
            level: int = row["credit_micros"] - row["used_micros"] + row["excluded_micros"]
            return isinstance(known, Known) and known.level_micros == level and row["used_micros"] == self.used[account]

        await until(same, f"{account} in both books", every_seconds=0.02)

    async def assert_one_charge(self, account: str) -> None:
        """20.00 at the gateway, once; booked once; shown by Redis; and all rules of the ledger hold."""
        assert [p["amount_received"] for p in await self.charged(account)] == [2_000]
        assert (await self.charges(account)).count("succeeded") == 1
        assert await self.credits(account) == [20 * UNIT]
        await self.until_booked(account)
        assert (await self.balance(account)).credit_micros == (await self.account(account))["credit_micros"]
        assert [check for check in await verify(self.pool) if not check.passed] == []


    async def known(self, account: str) -> Known:
        """Its balance, once it is known: right after its opening it may be derived."""

        async def is_known() -> bool:
            return isinstance(await self.balance(account), Known)

        await until(is_known, f"{account} to be known")
        known = await self.balance(account)
        assert isinstance(known, Known)
        return known

    async def signal_low(self, account: str, times: int, known: Known | None = None) -> None:
        """Low-balance signals, as the in-flight owner would repeat them; `known`: of an earlier moment."""
        known = known or await self.known(account)
        timeline = await self.pool.fetchval("select timeline from ledger_meta")
        low = BalanceLow(
            account=account,
            currency=known.currency,
            incarnation=int(known.incarnation),
            timeline=timeline,
            usage_position=known.usage_position,
            log_time_ms=known.log_time_ms,
            level_micros=known.level_micros,
            available_micros=known.available_micros,
            recharge_below_micros=known.recharge_below_micros,
            credit_limit_micros=0,
        )
        topic, partition = self.settings.topics.signals, home_partition(account, self.settings.partitions)
        values = [encode_signal(low, f"t:{next(self.numbers)}", int(time.time() * 1000)) for _ in range(times)]
        sent = [
            await self.producer.send(
                topic, value=value, key=account.encode(), headers=list(CLOUDEVENTS_HEADERS), partition=partition
            )
            for value in values
        ]
        await asyncio.gather(*sent)

    async def confirm_by_hand(self, payment: str) -> None:
        """Somebody else confirms a payment at the gateway."""

        def post() -> None:
            request = urllib.request.Request(
                f"{self.sandbox.settings.api_base}/v1/payment_intents/{payment}/confirm",
                data=b"off_session=true",
                headers={"Authorization": f"Bearer {self.sandbox.settings.api_key}"},
            )
            urllib.request.urlopen(request, timeout=5).close()

        await asyncio.to_thread(post)


@asynccontextmanager
async def recharging(settings: Settings, folder: Path, *, worker: bool = True) -> AsyncIterator[Recharging]:
    """Migrated, all consumers ready; without `worker` no recharge process yet."""
    sandbox = SandboxProcess(folder / "sandbox")
    logs = folder / "logs"
    logs.mkdir()
    client = open_client(settings.redis_url)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all")
    found: Recharging | None = None
    try:
        await prepare(settings)
        pool = await open_pool(settings.owner_dsn, max_size=4)
        await producer.start()
        functions = Functions(client, settings.key_space)
        reader = BalanceReader(functions, settings.topics, lambda a: home_partition(a, settings.partitions))
        async with open_books(settings) as books:
            found = Recharging(settings, sandbox, logs, pool, producer, books, reader)
            for kind in BOOKKEEPERS:
                found.consumers[kind] = Consumer(kind, kind, settings, logs)
                found.consumers[kind].start()
            await asyncio.gather(*(each.ready() for each in found.consumers.values()))
            if worker:
                await found.add_worker("recharge")
            yield found
    finally:
        if found is not None:
            await asyncio.gather(*(each.kill() for each in found.consumers.values()))
            found.pool.terminate()
        await producer.stop()
        await client.aclose()
        sandbox.stop()
