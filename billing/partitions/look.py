"""Where a deployment stands with its partitions, and what is in the way of another number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from redis.exceptions import RedisError

from billing.balance.client import UnsupportedServer, check_server, open_client
from billing.ledger.database import Connection, Pool, lease
from billing.ledger.history import suspected
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.migrate import newest_version
from billing.ledger.queries import query
from billing.ledger.snapshots import positions
from billing.partitions.kafka_side import members, partition_counts
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader

MOST = 1024


@dataclass(frozen=True, slots=True)
class Migration:
    """One that moved accounts; the newest may not be complete."""

    from_partitions: int
    to_partitions: int
    author: str
    reason: str
    moved_at: datetime
    accounts: int


@dataclass(frozen=True, slots=True)
class Standing:
    """`setting` is BILLING_PARTITIONS; `topics` by name, those that there are; `moving_to` that of an incomplete
    migration. `behind` is how many offsets of usage.events the ledger has not read, in the partitions that it has;
    `consumers` the members of each group, and relays, that run."""

    setting: int
    ledger: int
    moving_to: int | None
    topics: Mapping[str, int]
    behind: int
    consumers: Mapping[str, int]
    migrations: Sequence[Migration] = field(default_factory=tuple)

    @property
    def agreed(self) -> bool:
        """Whether everything is made for the same number, and complete."""
        return self.moving_to is None and {self.setting, *self.topics.values()} == {self.ledger}

    @property
    def advice(self) -> str:
        """What to do, one line."""
        if self.moving_to is not None:
            return (
                f"a migration to {self.moving_to} is not complete: run"
                f" `billing partitions migrate --to {self.moving_to} --apply` again"
            )
        few = [topic for topic, count in self.topics.items() if count < self.ledger]
        if few:
            return f"{', '.join(few)}: fewer partitions than the ledger has positions in; is it another topic?"
        most = max(self.topics.values(), default=self.ledger)
        if most > self.ledger:
            return (
                "partitions were added: stop producers and all processes, then run"
                f" `billing partitions migrate --to {most}`, a dry run, and the same with --apply"
            )
        if self.setting != self.ledger:
            return f"set BILLING_PARTITIONS={self.ledger}, for every process"
        return "everything agrees"


async def look(settings: Settings, pool: Pool, reader: LogReader) -> Standing:
    """Raises what asyncpg raises, LogAway; LookupError where the ledger is not migrated to this build."""
    async with lease(pool) as connection:
        row = await connection.fetchrow(query("partitions.layout"))
        if row is None or (row["version"] or 0) < newest_version():
            raise LookupError("the ledger is not migrated to this build's schema: run `billing migrate`")
        relays = await connection.fetchval(query("relay.count_relays"), LOCK_SPACE, Lock.RELAY_MEMBER)
        migrations = await connection.fetch(query("partitions.migrations"))
    topics = await partition_counts(settings)
    consumers = await members(settings)
    return Standing(
        settings.partitions,
        row["partitions"],
        row["moving_to"],
        topics,
        await _behind(settings, pool, reader, topics),
        {**consumers, **({"relay": relays} if relays else {})},
        [Migration(*(found[name] for name in Migration.__dataclass_fields__)) for found in migrations],
    )


async def _behind(settings: Settings, pool: Pool, reader: LogReader, topics: Mapping[str, int]) -> int:
    topic = settings.topics.usage
    at = {p: found.position.offset for p, found in (await positions(pool)).items() if p < topics.get(topic, 0)}
    ends = await reader.ends([(topic, partition) for partition in at]) if at else {}
    return sum(max(0, end - at[partition]) for (_, partition), end in ends.items())


async def in_the_way(settings: Settings, pool: Pool, connection: Connection, standing: Standing, to: int) -> list[str]:
    """Why a migration to `to` partitions must not begin now, or go on; one line each. `connection` is the ledger's
    owner's."""
    reasons = []
    if not await connection.fetchval(query("partitions.is_owner")):
        reasons.append("only the ledger's owner may move accounts: set BILLING_POSTGRES_OWNER_DSN")
    reasons += await _store_trouble(settings)
    if standing.moving_to is not None:
        if standing.moving_to != to:
            reasons.append(f"a migration to {standing.moving_to} partitions is not complete: complete it first")
        return reasons
    reasons += _wrong_number(settings, standing, to)
    reasons += [f"{name} runs ({count}): stop it" for name, count in standing.consumers.items()]
    if (why := await suspected(pool)) is not None:
        reasons.append(f"the ledger may have been restored to an earlier time: {why}")
    for row in await connection.fetch(query("halts.halted")):
        reasons.append(f"{row['topic']}-{row['partition']} is halted: {row['halted']}")
    return reasons


def _wrong_number(settings: Settings, standing: Standing, to: int) -> list[str]:
    reasons = []
    if not standing.ledger < to <= MOST:
        reasons.append(f"partitions can only be added: more than {standing.ledger}, at most {MOST}")
    wanted = (settings.topics.usage, settings.topics.entries, settings.topics.signals)
    for topic in wanted:
        count = standing.topics.get(topic)
        if count is None:
            reasons.append(f"there is no topic {topic}")
        elif count < standing.ledger:
            reasons.append(f"topic {topic} has {count} partitions, fewer than the ledger's {standing.ledger}")
        elif count > to:
            reasons.append(f"topic {topic} has {count} partitions already: --to {count}")
    return reasons


async def _store_trouble(settings: Settings) -> list[str]:
    client = open_client(settings.redis_url)
    try:
        await check_server(client)
    except UnsupportedServer as error:
        return [str(error)]
    except (RedisError, OSError) as error:
        return [f"the balance store, which is rebuilt at the end, does not answer: {type(error).__name__}"]
    finally:
        await client.aclose()
    return []
