"""Publishing dead letters again, and giving them up: who decided it and why is kept with each.

A letter is published again with the same key, value and headers, so it is the same session: whatever is replayed twice,
by two operators, or by a command that was killed between Kafka and the ledger, is charged once (R7). What is kept says
so in three steps, each committed before the next: asked, published, and (by post-flight's own position) read.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol

from billing.deadletters.letters import Letter, Place, columns
from billing.deadletters.prices import LedgerPrices
from billing.ledger.database import Connection, Pool, fetch
from billing.ledger.locks import LOCK_SPACE, Lock
from billing.ledger.migrate import USAGE_TOPIC
from billing.ledger.queries import query
from billing.ledger.retry import in_transaction
from billing.ledger.terms import text_problem
from billing.stream.publisher import Delivered, Outgoing, PublishFailed
from billing.usage.worth import Outlook
from schemas.deadletter import DeadLetterState
from schemas.reasons import DeadLetterReason

BATCH = 500
REPLAYABLE: tuple[DeadLetterState, ...] = ("open", "replaying")


class Outlet(Protocol):
    """What a replay needs of Kafka (`billing.stream.publisher.Publisher`)."""

    async def publish(self, records: Sequence[Outgoing]) -> list[Delivered]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decides, and why."""

    author: str
    reason: str

    def problem(self) -> str | None:
        """Why it cannot be kept, or None."""
        for name, value in (("--by", self.author), ("--reason", self.reason)):
            found = text_problem(value, empty=False)
            if found is not None:
                return f"{name} {found}"
        return None


@dataclass(frozen=True, slots=True)
class Held:
    """A letter that is not published again, and why."""

    place: Place
    why: str


@dataclass
class Replayed:
    """`published`: each letter and where it is now. `unknown` were handed to Kafka and not acknowledged: `trouble` says
    why; they may be in the log or not, and may be replayed again either way."""

    published: list[tuple[Place, Place]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    unknown: list[Place] = field(default_factory=list)
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A letter that would be published again, to this partition. `again` is the reason for which it would be a dead
    letter once more as things stand, if so."""

    letter: Letter
    partition: int
    again: DeadLetterReason | None


async def plan(
    prices: LedgerPrices, letters: Sequence[Letter], now_ms: int, *, anyway: bool
) -> tuple[list[Planned], list[Held]]:
    """Which of `letters` a replay would publish. Held back are those that somebody has decided about, signals, those
    that would be refused again (unless `anyway`), and always those that are too old: they can only get older."""
    planned, held = [], []
    for letter, outlook in zip(letters, await prices.outlook(letters, now_ms), strict=True):
        why = _why_not(letter, outlook, anyway)
        if why is None:
            planned.append(Planned(letter, outlook.partition, outlook.reason))
        else:
            held.append(Held(letter.place, why))
    return planned, held


async def without_copies(pool: Pool, planned: Sequence[Planned]) -> tuple[list[Planned], list[Held]]:
    """Of letters that a filter found: those that came from a replay and would be refused once more are held back, else
    two operators at once would each replay what the other's replays left. By name they may go."""
    doubtful = [p.letter.place for p in planned if p.again is not None]
    rows = await fetch(pool, query("dead_letters.copies"), *columns(doubtful)) if doubtful else []
    copies = {Place(*row) for row in rows}
    held = [Held(place, "came from a replay and would be refused again: name it to replay it") for place in copies]
    return [p for p in planned if p.letter.place not in copies], held


def _why_not(letter: Letter, outlook: Outlook, anyway: bool) -> str | None:
    if letter.place.topic != USAGE_TOPIC:
        return "a signal: what is still true is told again by itself"
    if letter.state not in REPLAYABLE:
        return _done(letter)
    if outlook.reason is DeadLetterReason.TIME_TOO_OLD:
        return "too old: it would be refused however often it came"
    if outlook.reason is not None and not anyway:
        return f"would be refused again: {outlook.reason.value}, {outlook.detail}"
    return None


def _done(letter: Letter) -> str:
    became = letter.became
    match letter.state:
        case "discarded":
            return "it was discarded before"
        case "refused_again":
            return f"replayed before, and a dead letter again: {became}"
        case "replayed":
            return f"replayed as {became}, which post-flight has not read yet"
        case _:
            return f"replayed before, as {became}, and taken in"


class Replay:
    """Publishes letters again to `topic` (its full name), for one decision."""

    def __init__(self, pool: Pool, outlet: Outlet, topic: str, decision: Decision) -> None:
        self._pool = pool
        self._outlet = outlet
        self._topic = topic
        self._decision = decision

    async def publish(self, planned: Sequence[Planned]) -> Replayed:
        """Each letter to its account's partition, up to the first trouble with Kafka. Raises what asyncpg raises; what
        was published just before that is not marked so, and replaying it again is harmless."""
        done = Replayed()
        for start in range(0, len(planned), BATCH):
            await self._batch(planned[start : start + BATCH], done)
            if done.trouble is not None:
                break
        return done

    async def _batch(self, planned: Sequence[Planned], done: Replayed) -> None:
        asked = await _ask(self._pool, planned, self._decision)
        lost = [p.letter.place for p in planned if p.letter.place not in asked]
        done.held += [Held(place, "somebody else has just decided") for place in lost]
        batch = [p for p in planned if p.letter.place in asked]
        places = [p.letter.place for p in batch]
        try:
            delivered = await self._outlet.publish([_outgoing(p, self._topic) for p in batch])
        except (PublishFailed, ValueError) as error:  # ValueError: larger than any request may be
            done.unknown += places
            done.trouble = str(error)
            return
        # a repeat of a request whose reply was lost is acknowledged without its offset
        known = [(place, there) for place, there in zip(places, delivered, strict=True) if there.offset >= 0]
        done.unknown += [place for place, there in zip(places, delivered, strict=True) if there.offset < 0]
        await _mark(self._pool, [place for place, _ in known], [there for _, there in known], self._decision)
        done.published += [(place, Place(USAGE_TOPIC, there.partition, there.offset)) for place, there in known]


async def _ask(pool: Pool, planned: Sequence[Planned], decision: Decision) -> set[Place]:
    topics, partitions, offsets = columns([p.letter.place for p in planned])
    targets = [p.partition for p in planned]

    async def work(connection: Connection) -> set[Place]:
        await connection.execute(query("dead_letters.lock"), LOCK_SPACE, Lock.DEAD_LETTERS)
        rows = await connection.fetch(
            query("dead_letters.ask"), topics, partitions, offsets, targets, decision.author, decision.reason
        )
        return {Place(*row) for row in rows}

    return await in_transaction(pool, work)


async def _mark(pool: Pool, places: Sequence[Place], delivered: Sequence[Delivered], decision: Decision) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(
            query("dead_letters.mark_published"),
            *columns(places),
            [there.partition for there in delivered],
            [there.offset for there in delivered],
            *(decision.author, decision.reason),
        )

    await in_transaction(pool, work)


async def discard(pool: Pool, letters: Sequence[Letter], decision: Decision) -> tuple[list[Place], list[Held]]:
    """Give the letters up: the money that they hold up is forgiven. Only open ones; of one that was asked to be
    replayed nobody knows whether it is in the log, so replaying it again comes first."""
    places = [letter.place for letter in letters]

    async def work(connection: Connection) -> set[Place]:
        await connection.execute(query("dead_letters.lock"), LOCK_SPACE, Lock.DEAD_LETTERS)
        rows = await connection.fetch(query("dead_letters.discard"), *columns(places), decision.author, decision.reason)
        return {Place(*row) for row in rows}

    discarded = await in_transaction(pool, work)
    return _parted(letters, discarded)


def discardable(letters: Sequence[Letter]) -> tuple[list[Place], list[Held]]:
    """What `discard` would do with these, as they were read."""
    return _parted(letters, {letter.place for letter in letters if letter.state == "open"})


def _parted(letters: Sequence[Letter], discarded: Set[Place]) -> tuple[list[Place], list[Held]]:
    held = [Held(letter.place, _not_open(letter)) for letter in letters if letter.place not in discarded]
    return [letter.place for letter in letters if letter.place in discarded], held


def _not_open(letter: Letter) -> str:
    match letter.state:
        case "open":
            return "somebody else has just decided"
        case "replaying":
            return "asked to be replayed, and it may be in the log: replay it again first"
        case _:
            return _done(letter)


def _outgoing(planned: Planned, topic: str) -> Outgoing:
    record = planned.letter.record
    return Outgoing(topic, record.value, record.key, record.headers, planned.partition)
