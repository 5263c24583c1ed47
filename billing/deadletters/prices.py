"""The money that dead letters hold up: priced by the tariffs that the ledger has now, settled sessions left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from billing.deadletters.letters import Letter, Place
from billing.ledger.database import Pool, fetch, fetchrow
from billing.ledger.migrate import SIGNALS_TOPIC, USAGE_TOPIC
from billing.ledger.queries import query
from billing.rating.catalogue import Catalogue
from billing.usage.worth import Outlook, Worth, outlook_of, worth_of
from schemas.catalogue import Heartbeat, PlanAssignment, Rate, TariffVersion, encode_catalogue

_FAR_AWAY_MS = 220_000_000_000_000  # the ledger itself needs no horizon; still a date
_SIGNAL = Worth(0, None, "a signal, which is told again by itself")

SessionKey: TypeAlias = tuple[str, str, str]
NOBODY: SessionKey = ("", "", "")
"""No session has this key."""


class LedgerPrices:
    """A catalogue of the accounts that were asked for and their plans, read from the ledger as needed."""

    def __init__(self, pool: Pool, partitions: int) -> None:
        self._pool = pool
        self._partitions = partitions
        self._catalogue = Catalogue()
        self._timeline = ""
        self._accounts: set[str] = set()
        self._plans: set[str] = set()

    async def worth(self, letters: Sequence[Letter]) -> list[Worth]:
        """What each would have cost, in their order."""
        await self._learn(letters)
        return [
            _SIGNAL
            if letter.place.topic == SIGNALS_TOPIC
            else worth_of(letter.record, self._catalogue, self._partitions)
            for letter in letters
        ]

    async def outlook(self, letters: Sequence[Letter], now_ms: int) -> list[Outlook]:
        """What each would be if it were published again now."""
        await self._learn(letters)
        return [outlook_of(letter.record, self._catalogue, self._partitions, now_ms) for letter in letters]

    async def settled(self, worths: Iterable[Worth]) -> dict[SessionKey, Place]:
        """Which of their sessions are settled, by whatever record, and where."""
        keys = sorted({key for worth in worths if (key := session_of(worth)) is not None})
        if not keys:
            return {}
        rows = await fetch(self._pool, query("dead_letters.settled"), *(list(part) for part in zip(*keys, strict=True)))
        return {
            (row["account_id"], row["kind"], row["session_id"]): Place(USAGE_TOPIC, row["partition"], row["log_offset"])
            for row in rows
        }

    async def _learn(self, letters: Sequence[Letter]) -> None:
        if not self._timeline:
            row = await fetchrow(self._pool, query("tariffs.timeline"))
            assert row is not None
            self._timeline = row["timeline"]
            self._apply(Heartbeat(timeline=self._timeline, as_of_ms=_FAR_AWAY_MS))
        fresh = {letter.account for letter in letters if letter.account is not None} - self._accounts
        if not fresh:
            return
        self._accounts |= fresh
        rows = await fetch(self._pool, query("dead_letters.assignments"), sorted(fresh))
        await self._learn_plans({row["plan"] for row in rows} - self._plans)
        for row in rows:
            self._apply(PlanAssignment(timeline=self._timeline, **row))

    async def _learn_plans(self, plans: set[str]) -> None:
        self._plans |= plans
        for row in await fetch(self._pool, query("dead_letters.versions"), sorted(plans)) if plans else ():
            rates = await fetch(self._pool, query("tariffs.rates"), row["plan"], row["version"])
            self._apply(TariffVersion(timeline=self._timeline, rates=tuple(Rate(**rate) for rate in rates), **row))

    def _apply(self, message: Any) -> None:
        self._catalogue.apply(encode_catalogue(message, 0))


def session_of(worth: Worth) -> SessionKey | None:
    """The session that it would have charged."""
    if worth.account is None or worth.kind is None or worth.session is None:
        return None
    return worth.account, worth.kind, worth.session


@dataclass
class Suspended:
    """Of one reason: `micros` per currency, each session once; `unpriced` letters might have cost something, of those
    nobody can say what."""

    letters: int = 0
    oldest_at: datetime | None = None
    micros: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unpriced: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def unpriced_letters(self) -> int:
        """For whatever reason."""
        return sum(self.unpriced.values())


class Tally:
    """Adds up what unresolved letters hold up. Sessions are counted once over all letters: 8 bytes or so each."""

    def __init__(self, prices: LedgerPrices) -> None:
        self._prices = prices
        self._seen: set[int] = set()
        self.by_reason: dict[str, Suspended] = defaultdict(Suspended)

    async def add(self, letters: Sequence[Letter]) -> None:
        worths = await self._prices.worth(letters)
        settled = await self._prices.settled(worths)
        for letter, worth in zip(letters, worths, strict=True):
            self._add(letter, worth, settled)

    def _add(self, letter: Letter, worth: Worth, settled: Mapping[SessionKey, Place]) -> None:
        found = self.by_reason[letter.reason.value]
        found.letters += 1
        found.oldest_at = min(filter(None, (found.oldest_at, letter.stored_at)))
        session = session_of(worth)
        if worth.amount_micros is None:
            found.unpriced[worth.why] += 1
        elif session is not None and worth.currency is not None and session not in settled:
            key = hash(session)
            if key not in self._seen:
                self._seen.add(key)
                found.micros[worth.currency] += worth.amount_micros

    def totals(self) -> dict[str, int]:
        """Over all reasons, per currency."""
        sums: dict[str, int] = defaultdict(int)
        for found in self.by_reason.values():
            for currency, micros in found.micros.items():
                sums[currency] += micros
        return dict(sorted(sums.items()))

    def unpriced(self) -> int:
        """Letters, over all reasons, that nobody can price."""
        return sum(found.unpriced_letters for found in self.by_reason.values())
