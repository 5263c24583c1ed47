"""The in-flight consumer's parts, put together as `consumers.inflight` does, but for what an arm replaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from billing.balance.client import open_client
from billing.balance.codec import BalanceOp
from billing.balance.entries import EntriesInterpreter
from billing.balance.keys import GENERATION_MS
from billing.balance.pipelined_calls import PipelinedFunctions
from billing.balance.store import MAX_BATCH_OPS
from billing.settings import Settings
from billing.stream.catalogue import LiveCatalogue
from billing.stream.kafka_reader import LogReader
from billing.stream.plan import Plan
from billing.stream.sink import Sink
from billing.usage.interpreters import UsageInterpreter
from billing.usage.live import LiveClassifier, LiveOp


@dataclass(frozen=True)
class Parts:
    """Connected, and the catalogue read to its end."""

    settings: Settings
    reader: LogReader
    live: LiveCatalogue
    functions: PipelinedFunctions

    @property
    def usage(self) -> UsageInterpreter[LiveOp]:
        return UsageInterpreter(LiveClassifier(self.live.catalogue, self.settings.partitions), GENERATION_MS)

    def plan(self, sink: Sink[BalanceOp], group: str) -> Plan[BalanceOp]:
        """The consumer's plan with another sink or group; without ticks, which only an idle partition needs."""
        topics = self.settings.topics
        return Plan(
            group=self.settings.group(group),
            topics=(topics.entries, topics.usage),
            partitions=self.settings.partitions,
            sink=sink,
            interpreters={topics.entries: EntriesInterpreter(), topics.usage: self.usage},
            reader=self.reader,
            max_records={topics.entries: MAX_BATCH_OPS, topics.usage: MAX_BATCH_OPS},
            catch_up=self.live.catch_up,
            await_horizon=self.live.await_horizon,
        )


@asynccontextmanager
async def parts(settings: Settings) -> AsyncIterator[Parts]:
    """Everything that an arm needs, closed afterwards."""
    client = open_client(settings.redis_url)
    functions = PipelinedFunctions(client, settings.key_space)
    try:
        async with LogReader(settings.kafka_bootstrap, client_id="billing-bench") as reader:
            live = LiveCatalogue(reader, settings.topics.tariffs)
            async with live.following() as following:
                await live.ready(following)
                yield Parts(settings, reader, live, functions)
    finally:
        functions.close()
        await client.aclose()
