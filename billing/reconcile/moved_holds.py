"""Open holds of accounts that moved to another partition lately: what holds them is in the log of the partition before
(S16). The part of that log that a lease may reach back to is read as it was meant then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from billing.balance.records import HoldRecord
from billing.ledger.database import Pool, fetch
from billing.ledger.queries import query
from billing.ledger.snapshots import PartitionPosition
from billing.rating.catalogue import AccountEntry, Catalogue
from billing.reconcile.holds import Session
from billing.reconcile.replay import LONGEST_LEASE_MS, holds_at, replay_start
from billing.settings import Settings
from billing.stream.kafka_reader import LogReader
from billing.usage.classify import Classifier


class EarlierCatalogue(Catalogue):
    """A catalogue as it was before some accounts moved; `before` are their places then."""

    def __init__(self, present: Catalogue, before: Mapping[str, tuple[int, int]]) -> None:
        """Shares everything but the places with `present`."""
        super().__init__()
        self.__dict__.update(present.__dict__)
        self._before = before

    def account(self, account: str) -> AccountEntry | None:
        """The account's entry as it was."""
        entry = super().account(account)
        place = self._before.get(account)
        return entry if entry is None or place is None else AccountEntry(entry.plans, *place)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A migration: accounts left partition p at usage offset `offsets[p]`."""

    number: int
    offsets: Mapping[int, int]


async def moved_holds(
    pool: Pool,
    reader: LogReader,
    settings: Settings,
    catalogue: Catalogue,
    at: Mapping[int, PartitionPosition],
) -> dict[int, dict[Session, HoldRecord]]:
    """By the accounts' present partition: what earlier partitions' logs say is held. A hold is gone once its lease has
    ended in the log time of either partition. Raises what asyncpg raises, LogAway, OutOfRange, CatalogueNotReady."""
    found: dict[int, dict[Session, HoldRecord]] = {}
    now_ms = max((position.log_time_ms for position in at.values()), default=0)
    for cut in await _cuts(pool, now_ms - 2 * LONGEST_LEASE_MS):
        before, homes = await _places(pool, cut.number)
        classifier = Classifier(EarlierCatalogue(catalogue, before), settings.partitions)
        for partition, end in cut.offsets.items():
            log_time_ms = at[partition].log_time_ms
            start = await replay_start(reader, settings.topics.usage, partition, log_time_ms)
            records = reader.read(settings.topics.usage, partition, start, end)
            for session, hold in (await holds_at(records, classifier, log_time_ms, _unwatched)).items():
                home = homes.get(session[1])
                if home is not None and hold.lease_end_ms > at[home].log_time_ms:
                    of_home = found.setdefault(home, {})
                    of_home.update(together(of_home, {session: hold}))
    return found


def together(
    earlier: Mapping[Session, HoldRecord], later: Mapping[Session, HoldRecord]
) -> dict[Session, HoldRecord]:
    """Holds that come from two logs, one read after the other: as the balance store takes them, the larger elapsed
    counts, of equal ones the first amount, and of leases the longer one."""
    both = dict(earlier)
    for session, hold in later.items():
        old = both.get(session)
        if old is None:
            both[session] = hold
            continue
        counts = hold if hold.elapsed > old.elapsed else old
        both[session] = HoldRecord(counts.amount, counts.elapsed, max(hold.lease_end_ms, old.lease_end_ms))
    return both


async def _cuts(pool: Pool, since_ms: int) -> list[_Cut]:
    rows = await fetch(pool, query("partitions.recent_migrations"), since_ms)
    return [_Cut(row["id"], msgspec.json.decode(row["cuts"], type=dict[int, int], strict=False)) for row in rows]


async def _places(pool: Pool, number: int) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Of the accounts that moved in this migration or later: where they were before. Of those that moved in it: where
    they are now."""
    rows = await fetch(pool, query("partitions.places_before"), number)
    before = {row["account_id"]: (row["from_partition"], row["from_position"]) for row in rows}
    moved = await fetch(pool, query("partitions.moved_in"), number)
    return before, {row["id"]: row["home_partition"] for row in moved}


def _unwatched(offset: int) -> None:
    """These holds are part of no stage."""
