"""Is the balance store, as a whole, the one that the ledger expects? Its balances count only where it is (S08, S09)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from billing.balance.balances import Unknown
from billing.balance.calls import Functions
from billing.balance.reader import BalanceReader
from billing.ledger.incarnations import Identity
from billing.settings import Topics
from billing.usage.partitioner import home_partition


@dataclass(frozen=True, slots=True)
class Healthy:
    """Every partition is ready, of the ledger's timeline and of the incarnation that it minted last."""

    timeline: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """The first partition that is not, and why (the reasons of `billing.balance.balances.Unknown`)."""

    partition: int
    reason: str
    detail: str = ""


StoreHealth: TypeAlias = Healthy | Unhealthy


def expecting_reader(functions: Functions, topics: Topics, expected: Identity) -> BalanceReader:
    """A reader to which every store but the expected one is Unknown."""
    return BalanceReader(
        functions,
        topics,
        lambda account: home_partition(account, expected.partitions),
        # 0 is never minted: before the first incarnation no store is the expected one
        incarnation=expected.incarnation or 0,
        timeline=expected.timeline,
    )


async def store_health(functions: Functions, topics: Topics, expected: Identity) -> StoreHealth:
    """Ask every partition; `expected` is what `billing.ledger.incarnations.read_identity` answers. Never raises for
    a store that is away."""
    reader = expecting_reader(functions, topics, expected)
    for partition in range(expected.partitions):
        view = await reader.read_partition(partition)
        if isinstance(view, Unknown):
            return Unhealthy(partition, view.reason, view.detail)
    return Healthy(expected.timeline, expected.incarnation or 0)
