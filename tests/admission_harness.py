"""An admission service on a private balance store of two partitions, with a catalogue from memory, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import msgspec
import usage_builders as build
from balance_harness import entries, opened
from guard_harness import KEYS, TOPICS, Guarded
from yarl import URL

from billing.admission.balances import Balances, QuickReads
from billing.admission.http import serving
from billing.admission.lag import LogEnds
from billing.admission.service import Admission
from billing.balance.calls import Functions
from billing.balance.client import open_client
from billing.balance.store import RedisSink
from billing.ledger.incarnations import Identity
from billing.rating.catalogue import Catalogue
from billing.stream.sink import Applied, Claimed
from billing.usage.partitioner import home_partition
from schemas.admission import UnknownPolicy

DEADLINE_S = 0.2
CALL = {"kind": "call", "direction": "outbound", "to": "+12025550123"}


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    content_type: str
    body: dict[str, Any]


@dataclass
class Served:
    """The service at work. Change `catalogue`, `identity`, `now_ms` and `now_s` (of the clock that lag is reckoned by)
    at will."""

    guarded: Guarded
    catalogue: Catalogue | None
    identity: Identity | None
    now_ms: int = build.NOW_MS
    now_s: float = 0.0
    port: int = 0
    ends: LogEnds = field(init=False)
    service: Admission = field(init=False)
    http: aiohttp.ClientSession = field(init=False)

    async def get(self, path: str, method: str = "GET", **parameters: str) -> Answer:
        """The answer to one request; a `+` is percent-encoded, as a client should."""
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        async with self.http.request(method, url, params=parameters) as response:
            return Answer(response.status, response.content_type, await response.json())

    def logs_end(self, usage: int = 0, entries: int = 0) -> None:
        """The log's ends as they are read now, the same in every partition."""
        both = {TOPICS.usage: usage, TOPICS.entries: entries}
        self.ends.saw({(topic, p): end for topic, end in both.items() for p in range(KEYS.partitions)})

    async def authorize(self, account: str = build.ACCOUNT, **parameters: str) -> dict[str, Any]:
        """The answer to a call, or to what `parameters` ask."""
        answer = await self.get(f"/v1/accounts/{account}/authorize", **(parameters or CALL))
        assert (answer.status, answer.content_type) == (200, "application/json"), answer
        return answer.body


async def open_accounts(guarded: Guarded, *accounts: str, **terms: Any) -> None:
    """Entries of new accounts, applied as the in-flight consumer does."""
    async with guarded.connect() as client:
        sink = RedisSink(Functions(client, KEYS), TOPICS)
        for account in accounts:
            partition = home_partition(account, KEYS.partitions)
            claimed = await sink.claim(partition, "tests")
            assert isinstance(claimed, Claimed), claimed
            start = claimed.positions[TOPICS.entries].offset
            entry = msgspec.structs.replace(opened(account, **terms), home_partition=partition)
            batch = replace(entries(claimed.owner, start, [entry]), partition=partition)
            assert await sink.apply(batch) == Applied(start + 1)


@asynccontextmanager
async def served(guarded: Guarded, policy: UnknownPolicy = "allow") -> AsyncIterator[Served]:
    """The service over `guarded`'s server; the catalogue lists the account of the builders."""
    made = Served(guarded, build.catalogue(), guarded.identity)
    async with open_client(guarded.server.url, timeout_s=DEADLINE_S, max_connections=KEYS.partitions + 4) as client:
        balances = Balances(
            QuickReads(client, KEYS, timeout_s=DEADLINE_S),
            TOPICS,
            timeline=lambda: made.catalogue.timeline if made.catalogue else None,
            identity=lambda: made.identity,
            deadline_s=DEADLINE_S,
        )
        made.ends = LogEnds(30_000, clock=lambda: made.now_s)
        made.logs_end()
        made.service = Admission(
            lambda: made.catalogue, balances, made.ends, policy, KEYS.partitions, clock_ms=lambda: made.now_ms
        )
        async with serving(made.service, "127.0.0.1", 0) as port, aiohttp.ClientSession() as made.http:
            made.port = port
            yield made
        await balances.close()
