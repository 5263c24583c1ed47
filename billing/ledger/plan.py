"""How the ledger is fed from usage.events: by post-flight, and by whoever has to settle in its place."""

from __future__ import annotations

from billing.ledger.database import Pool
from billing.ledger.sink import PostgresSink
from billing.settings import Settings
from billing.stream.catalogue import LiveCatalogue
from billing.stream.kafka_reader import LogReader
from billing.stream.plan import Plan
from billing.stream.preparing import Preparing
from billing.usage.classify import LedgerClassifier
from billing.usage.interpreters import UsageInterpreter
from billing.usage.ops import UsageOp

BATCH_RECORDS = 5_000
PIECE_RECORDS = 200  # a settlement takes tens of milliseconds: nothing waits for a shorter turn


def settlement_plan(
    settings: Settings, pool: Pool, reader: LogReader, live: LiveCatalogue, *, group: str
) -> Plan[UsageOp]:
    """One batch of usage is one settlement; priced from `live`. `group` is its name without the deployment's."""
    usage = settings.topics.usage
    return Plan(
        group=settings.group(group),
        topics=(usage,),
        partitions=settings.partitions,
        sink=PostgresSink(pool, settings),
        interpreters={usage: UsageInterpreter(LedgerClassifier(live.catalogue, settings.partitions))},
        reader=reader,
        max_records={usage: BATCH_RECORDS},
        preparing=Preparing(PIECE_RECORDS),
        catch_up=live.catch_up,
        await_horizon=live.await_horizon,
    )
