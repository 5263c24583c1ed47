"""S45: a primary, one intermediate replica per data centre, replicas of that: the guard understands the chain, names
what is broken in it, and which server is the least stale when the primary is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from guard_harness import KEYS, Factory, Guarded, until

from billing.guard.findings import Finding
from billing.guard.verdict import GuardVerdict

QUICK = {"repl-diskless-sync-delay": "0"}


class Chain:
    """primary <- near, primary <- far <- leaf; the guard looks at the primary."""

    def __init__(self, make: Factory) -> None:
        servers = [make(config=dict(QUICK)) for _ in range(4)]
        self.primary, self.near, self.far, self.leaf = map(Guarded, servers)

    async def link(self) -> Chain:
        """Filled, and everybody follows."""
        await self.primary.filled(offset=10)
        for follower, above in ((self.near, self.primary), (self.far, self.primary), (self.leaf, self.far)):
            await follower.do("REPLICAOF", "127.0.0.1", above.server.port)
        for follower in (self.near, self.far, self.leaf):
            await until(lambda follower=follower: _linked(follower))
        return self

    async def moved_on(self, offset: int) -> None:
        """The primary has applied more of the log."""
        for partition in range(KEYS.partitions):
            await self.primary.do("HSET", KEYS.data(partition, "7")[0], "usage_offset", offset)

    def leaf_shows(self, offset: int | None) -> Callable[[], Awaitable[bool]]:
        """Whether the last of the chain has heard of that."""
        expected = None if offset is None else str(offset).encode()

        async def shown() -> bool:
            return await self.leaf.do("HGET", KEYS.data(1, "7")[0], "usage_offset") == expected

        return shown


async def _linked(follower: Guarded) -> bool:
    async with follower.connect() as client:  # type: ignore[union-attr]
        info = await client.info("replication")
        return info.get("master_link_status") == "up" and info["slave_repl_offset"] > 0


def named(guarded: Guarded) -> str:
    return f"127.0.0.1:{guarded.server.port}"


def detail(verdict: GuardVerdict, finding: Finding) -> str:
    return next((found.detail for found in verdict.findings if found.finding is finding), "")


@pytest.fixture
async def chain(private_valkey: Factory) -> Chain:
    return await Chain(private_valkey).link()


async def test_s45_the_chain_is_understood_and_what_breaks_in_it_is_named(chain: Chain) -> None:
    verdict = await chain.primary.look()
    assert verdict.findings == ()
    around = {name: server["follows"] for name, server in verdict.seen["around"].items()}  # type: ignore[attr-defined]
    primary, near, far, leaf = map(named, (chain.primary, chain.near, chain.far, chain.leaf))
    assert around == {near: primary, far: primary, leaf: far}

    verdict = await chain.leaf.look()
    assert verdict.reasons == ("replica", "read_only")
    assert detail(verdict, Finding.REPLICA) == f"a replica of {far}, link up, which follows {primary}"
    assert "replica_chain" not in verdict.warnings, "the primary above is none of its own"

    await chain.near.do("REPLICAOF", "127.0.0.1", chain.near.server.port)
    await chain.far.do("REPLICAOF", "127.0.0.1", chain.leaf.server.port)
    verdict = await chain.primary.look()
    said = detail(verdict, Finding.REPLICA_CHAIN)
    assert (verdict.healthy, verdict.warnings) == (True, ("replica_chain",))
    assert f"{near} follows itself" in said
    assert f"{far} follows a circle: {far} -> {leaf} -> {far}" in said

    await chain.near.do("REPLICAOF", "NO", "ONE")
    chain.leaf.server.pause()
    verdict = await chain.primary.look()
    chain.leaf.server.resume()
    said = detail(verdict, Finding.REPLICA_CHAIN)
    assert f"{near} is a primary of its own" in said
    assert f"{leaf} does not answer: TimeoutError" in said


async def test_s45_the_least_stale_is_named_by_its_log_positions(chain: Chain) -> None:
    """`near` hears nothing more, `far` and `leaf` do; then the primary is gone."""
    await chain.primary.look()
    await chain.near.do("REPLICAOF", "127.0.0.1", 1)
    await chain.moved_on(25)
    await until(chain.leaf_shows(25))
    await chain.primary.look()
    chain.primary.server.kill()
    verdict = await chain.primary.look()
    assert verdict.reasons == ("away",)
    said = detail(verdict, Finding.LEAST_STALE).split(", then ")
    assert [name.split(" ", 1)[0] for name in said] == [named(chain.far), named(chain.leaf), named(chain.near)]
    assert "(0 records behind the newest seen; follows" in said[0]
    assert "(30 records behind the newest seen; follows 127.0.0.1:1, link down)" in said[2]


@pytest.mark.slow
async def test_s09_s45_an_empty_primary_has_emptied_those_that_follow_it(chain: Chain) -> None:
    """`near` had been cut off and still has everything: it is the one to promote, far behind or not."""
    await chain.primary.look()
    await chain.near.do("REPLICAOF", "127.0.0.1", 1)
    await chain.moved_on(25)
    await until(chain.leaf_shows(25))
    await chain.primary.look()
    await chain.primary.do("FLUSHALL")
    await until(chain.leaf_shows(None))
    verdict = await chain.primary.look()
    assert "empty" in verdict.reasons
    said = detail(verdict, Finding.LEAST_STALE)
    assert said.startswith(f"{named(chain.near)} (30 records behind the newest seen; ")
    assert f"{named(chain.far)} (0 partitions readable; " in said
