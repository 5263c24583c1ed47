"""Clusters and sentinels of a test's own, and usage that flows into them through whatever happens."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from balance_harness import GENERATION_MS, TIMELINE, TOPICS, batch, charge, entries, opened

from billing.balance import admin
from billing.balance.balances import Known
from billing.balance.calls import Functions
from billing.balance.client import Client, open_client
from billing.balance.keys import KeySpace
from billing.balance.pipelined_calls import PipelinedFunctions
from billing.balance.reader import BalanceReader
from billing.balance.store import RedisSink
from billing.devstack.runs import private_folder
from billing.devstack.sentinel import SentinelServer, sentinel_url
from billing.devstack.valkey import ValkeyServer
from billing.devstack.valkey_cluster import ClusterNode, ValkeyCluster, command
from billing.stream.record import Position
from billing.stream.sink import (
    Applied,
    Behind,
    Claimed,
    Fenced,
    Halted,
    Owner,
    ReadOnly,
    Refused,
    Unavailable,
    Uninitialised,
)

PARTITIONS = 8
QUICK = {"repl-diskless-sync-delay": "0"}
CREDIT = 20_000_000
START = admin.Positions(Position(0, ""), Position(0, ""), 1_700_000_000_000)


@contextmanager
def cluster_servers(primaries: int = 3, replicas: int = 0) -> Iterator[ValkeyCluster]:
    """Running nodes that are not yet a cluster: `await it.build()`. The first `replicas` primaries have one each."""
    with ExitStack() as cleanup:
        folder: Path = cleanup.enter_context(private_folder("cluster"))
        nodes = [ClusterNode(folder / f"node-{number}") for number in range(primaries + replicas)]
        for node in nodes:
            cleanup.callback(node.discard)
            node.start()
        followers = [[node] for node in nodes[primaries:]] + [[] for _ in range(primaries - replicas)]
        yield ValkeyCluster(nodes[:primaries], followers)


@dataclass
class Watched:
    """A primary with replicas, and the sentinels that watch it as "billing"."""

    primary: ValkeyServer
    replicas: list[ValkeyServer]
    sentinels: list[SentinelServer]

    @property
    def url(self) -> str:
        return sentinel_url(self.sentinels, "billing")

    @property
    def servers(self) -> list[ValkeyServer]:
        return [self.primary, *self.replicas]

    async def ready(self) -> None:
        """Every sentinel knows all replicas and the other sentinels."""
        for sentinel in self.sentinels:
            await until(lambda sentinel=sentinel: self._knows(sentinel))

    async def _knows(self, sentinel: SentinelServer) -> bool:
        said = await command(sentinel, "SENTINEL", "MASTER", "billing")
        return (int(said[b"num-slaves"]), int(said[b"num-other-sentinels"])) == (
            len(self.replicas),
            len(self.sentinels) - 1,
        )


@contextmanager
def watched_servers(replicas: int = 2, sentinels: int = 3) -> Iterator[Watched]:
    """Running servers and sentinels: `await it.ready()`."""
    with ExitStack() as cleanup:
        folder: Path = cleanup.enter_context(private_folder("sentinel"))
        servers = [ValkeyServer(folder / f"server-{number}", config=dict(QUICK)) for number in range(1 + replicas)]
        for server in servers:
            cleanup.callback(server.discard)
            if server is not servers[0]:
                server.config["replicaof"] = f"127.0.0.1 {servers[0].port}"
            server.start()
        watching = [SentinelServer(folder / f"sentinel-{number}") for number in range(sentinels)]
        for sentinel in watching:
            cleanup.callback(sentinel.discard)
            sentinel.watching("billing", servers[0].port, sentinels // 2 + 1).start()
        yield Watched(servers[0], servers[1:], watching)


@asynccontextmanager
async def functions_at(url: str) -> AsyncIterator[Functions]:
    """Functions on keys of the test's own; the library is loaded under its real name."""
    client: Client = open_client(url)
    functions = PipelinedFunctions(client, KeySpace(f"t{uuid.uuid4().hex[:8]}", PARTITIONS, GENERATION_MS))
    try:
        assert await admin.load_functions(functions) is None
        yield functions
    finally:
        functions.close()
        await client.aclose()


@dataclass
class Flow:
    """One partition's usage: an endless log of charges of 1 µ each to account "a", applied as a consumer would: again
    after Unavailable, from the store's position after Behind, with a new claim after Fenced or Uninitialised."""

    functions: Functions
    partition: int
    answers: set[str] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    position: int = 0
    rewinds: int = 0
    size: int = 5

    def __post_init__(self) -> None:
        self.sink = RedisSink(self.functions, TOPICS)
        self.reader = BalanceReader(self.functions, TOPICS, lambda _account: self.partition)
        self.owner = Owner(0, "")

    async def open(self) -> Flow:
        """Initialise the partition with its account, and claim it."""
        answer = await admin.initialise(self.functions, self.partition, 1, TIMELINE, START)
        assert answer == admin.Done(), answer
        await self._claim()
        first = replace(entries(self.owner, 0, [opened("a", credit=CREDIT)]), partition=self.partition)
        assert await self.sink.apply(first) == Applied(1)
        return self

    async def step(self) -> Any:
        """One batch; its answer."""
        start, end = self.position, self.position + self.size
        ops = [charge(offset, "a", f"s{offset}", 1) for offset in range(start, end)]
        answer = await self.sink.apply(replace(batch(self.owner, start, end, ops), partition=self.partition))
        self.answers.add(type(answer).__name__)
        match answer:
            case Applied():
                self.position = end
            case Behind(position=position):
                self.rewinds += position.offset < self.position
                self.position = position.offset
            case Unavailable(reason=reason) | ReadOnly(reason=reason):
                self.reasons.add(reason)
                await asyncio.sleep(0.02)
            case Uninitialised(reason=reason):
                self.reasons.add(f"uninitialised: {reason}")
                await self._claim()
            case Fenced():
                await self._claim()
            case Refused() | Halted():
                raise AssertionError(answer)
        return answer

    async def run(self, done: asyncio.Event) -> None:
        """Batch after batch until `done`."""
        while not done.is_set():
            await self.step()
            await asyncio.sleep(0.002)  # leaves the processor to the servers

    async def exact(self) -> None:
        """The account was charged once for each record up to the position."""
        known = await self.reader.read_balance("a")
        assert isinstance(known, Known), known
        assert (known.used_micros, known.usage_position) == (self.position, self.position)

    async def _claim(self) -> None:
        while True:
            answer = await self.sink.claim(self.partition, uuid.uuid4().hex)
            if isinstance(answer, Claimed):
                self.owner = answer.owner
                offset = answer.positions[TOPICS.usage].offset
                self.rewinds += offset < self.position
                self.position = offset
                return
            self.answers.add(type(answer).__name__)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def flowing(flows: Sequence[Flow]) -> AsyncIterator[None]:
    """Usage flows into all of them while the block runs; what fails is raised at its end."""
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for flow in flows:
            group.create_task(flow.run(done))
        try:
            yield
        finally:
            done.set()


async def cut_off(replicas: Sequence[ValkeyServer], primary: ValkeyServer) -> None:
    """These, which are all that the primary has, hang, and from now on nothing reaches them."""
    for replica in replicas:
        replica.pause()
    await command(primary, "CLIENT", "KILL", "TYPE", "replica")


async def until(condition: Callable[[], Awaitable[bool]], limit_s: float = 20.0) -> None:
    """Wait for something that only servers know."""
    async with asyncio.timeout(limit_s):
        while not await condition():  # noqa: ASYNC110 - a server has no event to wait for
            await asyncio.sleep(0.02)


async def advanced(flows: Sequence[Flow], records: int, limit_s: float = 20.0) -> None:
    """Each has applied so many records more."""
    wanted = [flow.position + records for flow in flows]

    async def there() -> bool:
        return all(flow.position >= least for flow, least in zip(flows, wanted, strict=True))

    await until(there, limit_s)
