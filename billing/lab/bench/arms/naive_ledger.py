"""The ledger's consumer as one would write it first: a transaction for each event, Kafka's auto-commit.

It writes what the ledger writes (a usage row, two postings, the balance), into plain tables of its own without any of
the ledger's checks, so it is as fast as that can be. Holds are rows of a table, as they would be without a balance
store; or, for a second figure, they cost it nothing, and only completed sessions have transactions.
"""

from __future__ import annotations

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from billing.lab.bench.arms.making import Parts
from billing.lab.bench.arms.task import Task
from billing.lab.bench.counter import Counter
from billing.usage.classify import Classifier
from billing.usage.ops import Charge, Hold

COLUMNS = (
    *("account_id text", "kind text", "session_id text", "log_offset bigint", "log_time_ms bigint"),
    *("price_time_ms bigint", "amount_micros bigint", "currency text", "plan text", "tariff_version integer"),
    *("tariff_kind text", "direction text", "destination text", "origin text", "quantity bigint", "status text"),
    *("matched text", "event_id text", "event_source text"),
)
TABLES = (
    "drop table if exists naive_usage, naive_postings, naive_balances, naive_holds",
    f"create table naive_usage ({', '.join(COLUMNS)}, primary key (account_id, kind, session_id))",
    "create table naive_postings (account_id text, ledger_account text, currency text, amount_micros bigint)",
    "create table naive_balances as select account_id, 0::bigint as used_micros from balances",
    "alter table naive_balances add primary key (account_id)",
    "create table naive_holds (account_id text, kind text, session_id text, amount_micros bigint,"
    " primary key (account_id, kind, session_id))",
)
"""Made before it starts."""

USAGE = f"insert into naive_usage values ({', '.join(f'${n}' for n in range(1, len(COLUMNS) + 1))})"
POSTINGS = "insert into naive_postings values ($1, 'customer', $2, -$3::bigint), (null, 'revenue', $2, $3)"
BALANCE = "update naive_balances set used_micros = used_micros + $2 where account_id = $1"
HOLD = (
    "insert into naive_holds values ($1, $2, $3, $4)"
    " on conflict (account_id, kind, session_id) do update set amount_micros = excluded.amount_micros"
)
RELEASE = "delete from naive_holds where account_id = $1 and kind = $2 and session_id = $3"


async def run(parts: Parts, task: Task, counter: Counter) -> None:
    """Until it is killed, or the records end."""
    settings, topic = parts.settings, parts.settings.topics.usage
    classify = Classifier(parts.live.catalogue, settings.partitions).classify
    connection = await asyncpg.connect(settings.postgres_dsn, timeout=10, command_timeout=30)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=f"bench-naive-ledger-{task.each_event}",
        enable_auto_commit=True,
    )
    await consumer.start()
    try:
        pairs = {TopicPartition(topic, partition): begin for partition, begin in enumerate(task.begin)}
        consumer.assign(list(pairs))
        for pair, begin in pairs.items():
            consumer.seek(pair, begin)
        async for record in consumer:
            op = classify(record)
            if isinstance(op, Charge):
                async with connection.transaction():
                    await connection.execute(USAGE, *_row(op))
                    await connection.execute(POSTINGS, op.account, op.currency, op.amount_micros)
                    await connection.execute(BALANCE, op.account, op.amount_micros)
                    if task.each_event:
                        await connection.execute(RELEASE, op.account, op.kind, op.session)
            elif isinstance(op, Hold) and task.each_event:
                async with connection.transaction():
                    await connection.execute(HOLD, op.account, op.kind, op.session, op.amount_micros)
            counter.value += 1
    finally:
        await consumer.stop()
        await connection.close()


def _row(c: Charge) -> tuple[object, ...]:
    return (
        *(c.account, c.kind, c.session, c.offset, c.log_time_ms, c.price_time_ms, c.amount_micros, c.currency),
        *(c.plan, c.tariff_version, c.tariff_kind, c.direction, c.destination, c.origin, c.quantity, c.status),
        *(c.matched, c.event_id, c.event_source),
    )
