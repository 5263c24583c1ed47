"""What the recharge store's tests share: accounts with a card below their threshold, both books as one view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from billing.ledger.accounts import Account, show
from billing.ledger.database import Pool
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.opening import open_account
from billing.ledger.sink import PostgresSink
from billing.ledger.terms import NewAccount, Opened
from billing.ledger.verify import verify
from billing.recharge import evaluation, protocol
from billing.recharge.crediting import CreditBooked
from billing.recharge.intents import StoredIntent
from billing.recharge.policy import Limits, StoreView
from billing.recharge.protocol import Event
from billing.recharge.store import RechargeStore
from billing.stream.record import StoredRecord, fingerprint
from billing.stream.sink import Applied, Batch, Claimed, Owner
from billing.usage.ops import Charge
from billing.usage.partitioner import home_partition

UNIT = 1_000_000
NO_WAIT = replace(Limits(), minimum_interval_ms=0)


def card(**terms: Any) -> dict[str, Any]:
    """Recharged by 20.00 below 10.00."""
    return {
        "recharge_below_micros": 10 * UNIT,
        "recharge_by_micros": 20 * UNIT,
        "customer": "cus_1",
        "payment_method": "pm_1",
        **terms,
    }


@dataclass
class Books:
    """A migrated ledger with plan basic (USD); usage is settled as post-flight would."""

    pool: Pool
    sink: PostgresSink
    store: RechargeStore
    partitions: int

    async def open(self, account: str, **terms: Any) -> None:
        answer = await open_account(self.pool, NewAccount(account, "USD", "basic", **terms), author="tests")
        assert isinstance(answer, Opened), answer

    async def use(self, account: str, amount_micros: int) -> None:
        """One call that costs `amount_micros`, settled."""
        partition = home_partition(account, self.partitions)
        owner, start = await self._claim(partition)
        charge = Charge(
            offset=start,
            log_time_ms=1_000_000 + start,
            account=account,
            kind="call",
            session=f"s{start}",
            amount_micros=amount_micros,
            currency="USD",
            plan="basic",
            tariff_version=1,
            price_time_ms=900_000,
            tariff_kind="call",
            direction="outbound",
            destination="+4930123456",
            origin="+4940123456",
            quantity=60,
            status="completed",
            matched="49",
            event_id=f"e{start}",
            event_source="tests",
        )
        record = StoredRecord(USAGE_TOPIC, partition, start, charge.log_time_ms, account.encode(), b"{}")
        batch = Batch(owner, USAGE_TOPIC, partition, start, start + 1, fingerprint(record), record.timestamp, [charge])
        assert await self.sink.apply(batch) == Applied(start + 1)

    async def _claim(self, partition: int) -> tuple[Owner, int]:
        answer = await self.sink.claim(partition, "tests")
        assert isinstance(answer, Claimed), answer
        return answer.owner, next(iter(answer.positions.values())).offset

    async def low(self, account: str, **terms: Any) -> StoreView:
        """An account opened with 12.00 that used 5.00, and what a balance store with everything in it shows."""
        await self.open(account, credit_micros=12 * UNIT, **card(**terms))
        await self.save_card(account)
        await self.use(account, 5 * UNIT)
        return await self.view(account)

    async def save_card(self, account: str) -> None:
        """As the worker does once the gateway keeps the account's card with its customer."""
        await self.pool.execute(
            "insert into recharge_cards (account_id, customer, payment_method, saved_at)"
            " select id, customer, payment_method, now() from accounts where id = $1 on conflict (account_id)"
            " do update set customer = excluded.customer, payment_method = excluded.payment_method",
            account,
        )

    async def view(self, account: str) -> StoreView:
        """As Redis shows the account once it has followed the ledger."""
        row = await self.account(account)
        position = await self.pool.fetchrow(
            "select next_offset, log_time_ms from positions where topic = $1 and partition = $2",
            *(USAGE_TOPIC, row.home_partition),
        )
        assert position is not None
        return StoreView(
            healthy=True,
            health_reason="primary",
            unknown=None,
            credit_micros=row.credit_micros,
            used_micros=row.used_micros,
            excluded_debits_micros=row.excluded_micros,
            usage_position=position["next_offset"],
            log_time_ms=position["log_time_ms"],
        )

    async def account(self, account: str) -> Account:
        found = await show(self.pool, account)
        assert isinstance(found, Account)
        return found

    async def opened(self, account: str, view: StoreView, owner: str = "w1") -> StoredIntent:
        answer = await self.store.evaluate(account, view, owner=owner)
        assert isinstance(answer, evaluation.Opened), answer
        return answer.intent

    async def save(self, stored: StoredIntent, *events: Event) -> StoredIntent:
        for event in events:
            saved = await self.store.save(stored, event)
            assert isinstance(saved, StoredIntent), saved
            stored = saved
        return stored

    async def charged(self, stored: StoredIntent, payment: str) -> StoredIntent:
        """Through to `succeeded` with the amount that was asked for."""
        success = protocol.PaymentSucceeded(payment, stored.amount_minor)
        return await self.save(stored, protocol.Proven(), protocol.Created(payment), protocol.CheckPassed(), success)

    async def declined(self, stored: StoredIntent, payment: str) -> StoredIntent:
        """Through to `cancelled` after the bank said no."""
        events = (protocol.Created(payment), protocol.CheckPassed(), protocol.PaymentDeclined("card_declined"))
        return await self.save(stored, *events, protocol.PaymentCancelled())

    async def confirmed(self, stored: StoredIntent, payment: str) -> StoredIntent:
        """Charged, credited, read back."""
        stored = await self.charged(stored, payment)
        booked = await self.store.credit(stored.id)
        assert isinstance(booked, CreditBooked), booked
        seq = booked.intent.intent.credit_seq
        assert seq is not None
        return await self.save(booked.intent, protocol.ReadBack(seq))

    async def verified(self) -> None:
        assert [check for check in await verify(self.pool) if not check.passed] == []
