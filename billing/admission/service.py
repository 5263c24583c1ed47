"""Admission as HTTP sees it: a query in, an answer out, whatever is away. Also the service's view of its own health."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from math import inf, nan
from typing import Any

from billing.admission import metrics
from billing.admission.balances import Balances
from billing.admission.decide import Policy, UnknownAccount, decide
from billing.admission.lag import LogEnds, behind
from billing.admission.offer import find_offer
from billing.admission.request import kind_of
from billing.balance.balances import Known, PartitionView, Unknown
from billing.rating.catalogue import Catalogue
from billing.usage.partitioner import home_partition
from schemas.admission import Authorization, AuthorizationQuery, UnknownPolicy

PROBE_INTERVAL_S = 1.0


def now_ms() -> int:
    """Milliseconds since 1970 UTC: the price time of usage that begins now."""
    return time.time_ns() // 1_000_000


class Admission:
    """`catalogue` answers the one that may be priced from, or None; `ends` are kept current by somebody else."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue | None],
        balances: Balances,
        ends: LogEnds,
        policy: UnknownPolicy,
        partitions: int,
        *,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._catalogue = catalogue
        self._balances = balances
        self._ends = ends
        self._policy = Policy(policy, ends.limit_ms)
        self._partitions = partitions
        self._clock_ms = clock_ms
        self._store = {partition: "not asked yet" for partition in range(partitions)}

    async def authorize(self, account: str, query: AuthorizationQuery) -> Authorization | UnknownAccount:
        """The answer, within the deadline of the balance store. The price is the one of the moment of the answer."""
        began = time.perf_counter()
        balance = await self._balances.read(account)
        pricing = find_offer(self._catalogue(), account, query, self._clock_ms())
        lag = self._ends.lag(self._home(account), balance.positions) if isinstance(balance, Known) else None
        answer = decide(account, query, pricing, balance, lag=lag, policy=self._policy)
        metrics.SECONDS.observe(time.perf_counter() - began)
        if isinstance(answer, Authorization):
            allowed = "true" if answer.allowed else "false"
            metrics.ANSWERS.labels(kind_of(query), allowed, answer.reason.value).inc()
            if answer.balance.reason == "behind":
                metrics.UNKNOWN.labels("behind").inc()
        return answer

    async def watch(self) -> None:
        """Look at one partition after the other, for `health`, until cancelled."""
        for partition in itertools.cycle(range(self._partitions)):
            found = await self._balances.probe(partition)
            self._store[partition] = _why(found) if isinstance(found, Unknown) else self._behind(partition, found)
            catalogue = self._catalogue()
            metrics.HORIZON.set(0 if catalogue is None else (catalogue.horizon_ms or 0) / 1000)
            await asyncio.sleep(PROBE_INTERVAL_S / self._partitions)

    def _home(self, account: str) -> int:
        return home_partition(account, self._partitions)

    def _behind(self, partition: int, found: PartitionView) -> str:
        """Why the partition's balances count as unknown; "" where they do not. Also sets its metrics."""
        lag = self._ends.lag(partition, found.positions)
        metrics.LAG_RECORDS.labels(str(partition)).set(nan if lag is None else lag.records)
        metrics.LAG_SECONDS.labels(str(partition)).set(inf if lag is None or lag.age_ms is None else lag.age_ms / 1000)
        why = behind(lag, self._policy.behind_ms)
        return "" if why is None else _why(why)

    def health(self) -> dict[str, Any]:
        """Healthy while nothing has to be decided by policy: the catalogue is current and every partition answers."""
        catalogue = self._catalogue()
        horizon_ms = None if catalogue is None else catalogue.horizon_ms
        current = horizon_ms is not None and self._clock_ms() <= horizon_ms
        unknown = {str(partition): why for partition, why in self._store.items() if why}
        return {
            "healthy": current and not unknown,
            "unknown_policy": self._policy.unknown,
            "catalogue_current": current,
            "catalogue_horizon_ms": horizon_ms,
            "accounts": 0 if catalogue is None else len(catalogue),
            "unknown_partitions": unknown,
        }


def _why(unknown: Unknown) -> str:
    return f"{unknown.reason}: {unknown.detail}" if unknown.detail else unknown.reason
