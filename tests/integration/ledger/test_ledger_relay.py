"""The relay: nothing skipped, nothing out of order, and a heartbeat that vouches for what was published."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from aiokafka import AIOKafkaConsumer
from ledger_support import AUTHOR, RATES, Ledger, eventually, names

from billing.ledger.accounts import set_account
from billing.ledger.booking import credit
from billing.ledger.catalogue import CataloguePublisher
from billing.ledger.opening import import_accounts
from billing.ledger.outbox import Message, publish_entries
from billing.ledger.relay import Relay
from billing.ledger.tariffs import load_tariff
from billing.ledger.terms import Changes, NewAccount
from billing.stream.publisher import Outgoing
from billing.stream.publisher import Publisher as KafkaPublisher
from billing.stream.topics import ensure_topics
from schemas.catalogue import Heartbeat, PlanAssignment, TariffVersion, decode_catalogue
from schemas.ledger import AccountOpened, EntryPosted, LedgerEntry, decode_entry


class Recorder:
    """A publisher that keeps what it was given; `fail` raises instead, `hold` waits."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.fail = False
        self.hold: Callable[[Message], bool] = lambda _message: False
        self.calls = 0
        self.holding = False
        self.cancelled = 0

    async def publish(self, messages: list[Message]) -> None:
        self.calls += 1
        try:
            while any(self.hold(message) for message in messages):
                self.holding = True
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fail:
            raise ConnectionError("Kafka is away")
        self.messages.extend(messages)

    def entries(self, account: str | None = None) -> list[LedgerEntry]:
        found = [decode_entry(m.value) for m in self.messages if m.topic.endswith("ledger.entries")]
        return [entry for entry in found if account in (None, entry.account)]

    def versions(self) -> list[TariffVersion | PlanAssignment | Heartbeat]:
        return [decode_catalogue(m.value) for m in self.messages if m.topic.endswith("billing.tariffs")]

    def heartbeats(self) -> list[Heartbeat]:
        return [message for message in self.versions() if isinstance(message, Heartbeat)]


def relay_of(ledger: Ledger, publisher: Recorder) -> Relay:
    return Relay(ledger.pool, publisher, ledger.settings, poll_s=0.1, heartbeat_s=0.2)


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[Relay]:
    stop = asyncio.Event()
    task = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


async def drained(ledger: Ledger) -> bool:
    return await ledger.count("outbox") == 0 and await ledger.count("catalogue_outbox") == 0


async def test_entries_go_out_in_sequence_and_before_the_plan_that_makes_them_known(ledger: Ledger) -> None:
    await ledger.open("alice", "bob", credit_micros=5)
    for _ in range(20):
        await credit(ledger.pool, "alice", 1, "x", author=AUTHOR)
    recorder = Recorder()
    async with running(relay_of(ledger, recorder)):
        await eventually(lambda: drained(ledger))
    assert [entry.ledger_seq for entry in recorder.entries("alice")] == list(range(1, 22))
    order = [message.key.decode() for message in recorder.messages]
    assert order.index("alice") < order.index("plan:alice:1")
    assert order.index("bob") < order.index("plan:bob:1")
    assert isinstance(recorder.entries("bob")[0], AccountOpened)
    assert all(message.partition == 5 for message in recorder.messages if message.key == b"alice")
    await ledger.verified()


async def test_a_row_that_commits_late_with_a_lower_id_is_not_skipped(ledger: Ledger) -> None:
    early, late = names(0, 2)
    await ledger.open(early, late)
    recorder = Recorder()
    publish = publish_entries(ledger.pool, recorder, "ledger.entries", 0, 100)
    assert await publish == 2
    async with ledger.pool.acquire() as connection, connection.transaction():
        # takes its ids first, commits last
        await connection.execute(
            "insert into outbox (partition, account_id, ledger_seq, type, data)"
            " select 0, $1, 2, 'ledger.debits.acknowledged.v1',"
            " jsonb_build_object('account', $1::text, 'ledger_seq', 2, 'timeline', 't')",
            early,
        )
        await credit(ledger.pool, late, 1, "x", author=AUTHOR)
        assert await publish_entries(ledger.pool, recorder, "ledger.entries", 0, 100) == 1
    assert await publish_entries(ledger.pool, recorder, "ledger.entries", 0, 100) == 1
    assert [(entry.account, entry.ledger_seq) for entry in recorder.entries()][2:] == [(late, 2), (early, 2)]


async def test_what_was_not_acknowledged_is_published_again_and_nothing_is_lost(ledger: Ledger) -> None:
    await ledger.open("alice")
    recorder = Recorder()
    recorder.fail = True
    async with running(relay_of(ledger, recorder)):
        await eventually(lambda: _true(recorder.calls >= 4))
        assert await ledger.count("outbox") == 1
        recorder.fail = False
        await eventually(lambda: drained(ledger))
        await eventually(lambda: _true(recorder.heartbeats()))
    assert [entry.ledger_seq for entry in recorder.entries("alice")] == [1]


async def test_several_relays_share_the_partitions_and_take_over(ledger: Ledger) -> None:
    recorder = Recorder()
    async with running(relay_of(ledger, recorder)) as first:
        await eventually(lambda: _true(len(first.owned) == 8))
        async with running(relay_of(ledger, recorder)) as second, running(relay_of(ledger, recorder)) as third:
            sizes = (first, second, third)
            await eventually(lambda: _true(sorted(len(relay.owned) for relay in sizes) == [2, 3, 3]))
            assert first.owned | second.owned | third.owned == set(range(8))
        await eventually(lambda: _true(len(first.owned) == 8))


async def test_a_relay_whose_lock_connection_dies_stops_and_comes_back(ledger: Ledger) -> None:
    recorder = Recorder()
    async with running(relay_of(ledger, recorder)) as relay:
        await eventually(lambda: _true(len(relay.owned) == 8))
        recorder.hold = lambda message: message.key == b"alice"
        await ledger.open("alice")
        await eventually(lambda: _true(recorder.holding))
        await ledger.pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'billing-relay-locks' and datname = current_database()"
        )
        await eventually(lambda: _true(recorder.cancelled))
        recorder.hold = lambda _message: False
        await eventually(lambda: drained(ledger))
        await eventually(lambda: _true(len(relay.owned) == 8))
    assert [entry.ledger_seq for entry in recorder.entries("alice")] == [1]


async def test_s47_the_heartbeat_vouches_for_every_version_committed_before_it(ledger: Ledger) -> None:
    """Versions are loaded while heartbeats go out: each that was committed before as_of is published before the
    heartbeat, each later one takes effect at least the lead after it."""
    recorder = Recorder()
    publisher = CataloguePublisher(ledger.pool, recorder, "billing.tariffs", heartbeat_s=0.01)
    loading = asyncio.create_task(_load_versions(ledger, 40))
    while not loading.done():
        await publisher.step()
    while await publisher.step():
        pass
    seen: set[tuple[str, int]] = set()
    as_of_ms = 0
    for message in recorder.versions():
        if isinstance(message, Heartbeat):
            assert message.as_of_ms >= as_of_ms
            as_of_ms = message.as_of_ms
        elif isinstance(message, TariffVersion):
            seen.add((message.plan, message.version))
            assert message.version == 1 or message.effective_ms >= as_of_ms + 600_000
    assert seen == {("basic", version) for version in range(1, 42)}
    assert len(recorder.heartbeats()) >= 2


async def _load_versions(ledger: Ledger, count: int) -> None:
    for number in range(count):
        rate = msgspec.structs.replace(RATES[0], rate_micros=number)
        await load_tariff(ledger.pool, "basic", (rate,), "USD", author=AUTHOR)


async def test_s47_the_heartbeat_waits_for_an_assignment_whose_entries_are_not_out(ledger: Ledger) -> None:
    await load_tariff(ledger.pool, "gold", RATES, "USD", author=AUTHOR)
    await ledger.open("alice")
    await set_account(ledger.pool, "alice", Changes(plan="gold"), author=AUTHOR)
    recorder = Recorder()
    publisher = CataloguePublisher(ledger.pool, recorder, "billing.tariffs", heartbeat_s=60)
    for _ in range(3):
        await publisher.step()
    assert [type(message) for message in recorder.versions()] == [TariffVersion, TariffVersion]
    await publish_entries(ledger.pool, recorder, "ledger.entries", 5, 100)
    await publisher.step()
    await publisher.step()
    kinds = [type(message) for message in recorder.versions()][2:]
    assert kinds == [PlanAssignment, PlanAssignment, Heartbeat]


async def test_s47_as_of_waits_for_a_version_that_is_committing(ledger: Ledger) -> None:
    recorder = Recorder()
    publisher = CataloguePublisher(ledger.pool, recorder, "billing.tariffs", heartbeat_s=0)
    await publisher.step()
    async with ledger.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "insert into tariffs (plan, version, currency, effective_ms, author) values ('basic', 2, 'USD', $1, 'x')",
            time.time_ns() // 1_000_000 + 700_000,
        )
        await connection.execute("set constraints all immediate")  # as if at commit: takes the lock
        beats = len(recorder.heartbeats())
        step = asyncio.create_task(publisher.step())
        await asyncio.wait({step}, timeout=0.3)
        assert not step.done()
    await step
    assert len(recorder.heartbeats()) > beats


async def test_an_import_flows_through_in_sequence(ledger: Ledger) -> None:
    rows = [NewAccount(f"a{i:05d}", "USD", "basic", credit_micros=1) for i in range(3000)]
    recorder = Recorder()
    async with running(relay_of(ledger, recorder)):
        await import_accounts(ledger.pool, rows, author=AUTHOR)
        await eventually(lambda: drained(ledger), timeout_s=30)
        await eventually(lambda: _true(recorder.heartbeats()))
    assert len({entry.account for entry in recorder.entries()}) == 3000
    assigned = [message.account for message in recorder.versions() if isinstance(message, PlanAssignment)]
    assert sorted(assigned) == [row.id for row in rows]


class ToKafka:
    """The adapter that consumers/relay.py has too: the relay's port over the stream's publisher."""

    def __init__(self, publisher: KafkaPublisher) -> None:
        self._publisher = publisher

    async def publish(self, messages: list[Message]) -> None:
        await self._publisher.publish(Outgoing(m.topic, m.value, m.key, m.headers, m.partition) for m in messages)


async def test_what_the_relay_publishes_can_be_read_from_kafka(ledger: Ledger) -> None:
    await ensure_topics(ledger.settings)
    await ledger.open("alice", credit_micros=5)
    await credit(ledger.pool, "alice", 7, "x", author=AUTHOR)
    async with KafkaPublisher(ledger.settings.kafka_bootstrap) as kafka:
        stop = asyncio.Event()
        task = asyncio.create_task(Relay(ledger.pool, ToKafka(kafka), ledger.settings, poll_s=0.1).run(stop))
        await eventually(lambda: drained(ledger), timeout_s=30)
        stop.set()
        await asyncio.wait_for(task, 15)
    consumer = AIOKafkaConsumer(
        ledger.settings.topics.entries,
        bootstrap_servers=ledger.settings.kafka_bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        records = [await asyncio.wait_for(consumer.getone(), 20) for _ in range(2)]
    finally:
        await consumer.stop()
    assert [(r.partition, r.key, type(decode_entry(r.value))) for r in records] == [
        (5, b"alice", AccountOpened),
        (5, b"alice", EntryPosted),
    ]


async def _true(value: object) -> bool:
    return bool(value)
