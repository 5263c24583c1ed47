"""Publishing signals: from a partition's stream in the balance store to `billing.signals`, by the partition's owner.

Read, publish, wait for the acknowledgement, then trim in a fenced call: a crash repeats, never loses. While Kafka is
away nothing is trimmed and batches go on. Nothing here runs while nothing is signalled, but one call a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec
import structlog

from billing.balance import metrics
from billing.balance.calls import Functions, Reply, Trouble
from billing.balance.sessions import OpenSessions
from billing.balance.signals import StoredSignal, published
from billing.stream.backoff import Backoff, Clock, SystemClock
from billing.stream.log import LogAway
from billing.stream.publisher import Outgoing, Publisher
from billing.stream.sink import Owner, ReadOnly, Unavailable
from schemas.common import CLOUDEVENTS_HEADERS
from schemas.signals import SessionName, encode_signal

log = structlog.get_logger(__name__)

REPEAT_S = 60.0
"""How often what still holds is told again; by the owner's clock, because a signal is no verdict."""
CHUNK = 500  # signals published between two trims
REPEATS_PER_CALL = 50  # accounts that one call tells again


@dataclass(frozen=True, slots=True)
class _Away:
    """Kafka did not acknowledge."""

    reason: str


Outcome: TypeAlias = Trouble | _Away | None


@dataclass(slots=True)
class _Lane:
    """One owned partition. `cursor` is where the round of repeats goes on."""

    partition: int
    owner: Owner
    incarnation: str
    sessions: OpenSessions
    next_round_s: float
    cursor: str = "0"
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class SignalPublisher:
    """Give it to the sink, which tells it what it owns, and keep `run` running beside the runner."""

    def __init__(
        self,
        functions: Functions,
        topic: str,
        publisher: Publisher,
        *,
        clock: Clock | None = None,
        repeat_s: float = REPEAT_S,
    ) -> None:
        self._functions = functions
        self._topic = topic
        self._publisher = publisher
        self._clock = clock or SystemClock()
        self._repeat_s = repeat_s
        self._lanes: dict[int, _Lane] = {}
        self._waiting: asyncio.Queue[int] = asyncio.Queue()  # at most the partitions that were claimed

    def owned(self, partition: int, owner: Owner, incarnation: str) -> None:
        """The partition was claimed: publish what is there, then tell again what holds."""
        lane, now = self._lanes.get(partition), self._clock.monotonic()
        if lane is None:
            sessions = OpenSessions(self._functions, partition, self._clock)
            self._lanes[partition] = _Lane(partition, owner, incarnation, sessions, now)
            self._waiting.put_nowait(partition)
            return
        lane.owner, lane.incarnation, lane.cursor, lane.next_round_s = owner, incarnation, "0", now
        lane.wake.set()

    def wake(self, partition: int) -> None:
        """Signals were written to the partition's stream."""
        if partition in self._lanes:
            self._lanes[partition].wake.set()

    async def run(self) -> None:
        """Until cancelled. Raises for a bug."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                partition = await self._waiting.get()
                tasks.create_task(self._serve(self._lanes[partition]), name=f"signals-{partition}")

    async def _serve(self, lane: _Lane) -> None:
        """Until another owns the partition, or the store is not ready; the next claim begins again."""
        backoff = Backoff(first_seconds=0.1, limit_seconds=5.0)
        while True:
            lane.wake.clear()
            owner = lane.owner
            outcome = await self._publish(lane) or await self._repeat(lane)
            match outcome:
                case None:
                    backoff.reset()
                    await self._until_woken(lane, lane.next_round_s - self._clock.monotonic())
                case _Away(reason) | ReadOnly(reason) | Unavailable(reason):
                    if backoff.attempt % 10 == 0:
                        log.warning("signals.waiting", partition=lane.partition, reason=reason)
                    await self._clock.sleep(backoff.next_seconds())
                case _ if owner == lane.owner:
                    log.info("signals.stopped", partition=lane.partition, answer=type(outcome).__name__)
                    del self._lanes[lane.partition]
                    return

    async def _until_woken(self, lane: _Lane, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await lane.wake.wait()

    async def _publish(self, lane: _Lane) -> Outcome:
        """Everything that is there; None when the stream is empty."""
        keep = ""
        while True:
            reply = await self._call(lane, "signals", keep, CHUNK)
            if not isinstance(reply, list):
                return reply
            _, timeline, backlog, entries = reply
            metrics.SIGNAL_BACKLOG.labels(str(lane.partition)).set(backlog)
            if not entries:
                return None
            stored = list(_readable(lane.partition, entries))
            records = await self._records(lane, timeline.decode(), stored)
            if not isinstance(records, list):
                return records
            try:
                await self._publisher.publish(records)
            except LogAway as error:
                return _Away(str(error))
            for _, signal in stored:
                metrics.SIGNALS.labels(signal.kind).inc()
            keep = _after(entries[-1][0].decode())

    async def _records(
        self, lane: _Lane, timeline: str, stored: Sequence[tuple[str, StoredSignal]]
    ) -> list[Outgoing] | Trouble:
        """One record per signal; none for a cutoff of an account that has no open session any more."""
        cut = {signal.account for _, signal in stored if signal.kind == "cutoff"}
        open_sessions: dict[str, list[SessionName]] = {}
        if cut:
            found = await lane.sessions.of(cut, lane.incarnation)
            if not isinstance(found, dict):
                return found
            open_sessions = found
        records = []
        for stream_id, signal in stored:
            made = published(signal, int(lane.incarnation), timeline, open_sessions.get(signal.account, []))
            if made is None:
                continue
            event_id = f"{timeline}:{lane.incarnation}:{lane.partition}:{stream_id}"
            value = encode_signal(made, event_id, int(stream_id.split("-")[0]))
            key = signal.account.encode()
            records.append(Outgoing(self._topic, value, key, CLOUDEVENTS_HEADERS, lane.partition))
        return records

    async def _repeat(self, lane: _Lane) -> Outcome:
        """Where a round is due, tell again what holds, page by page, each published before the next."""
        while self._clock.monotonic() >= lane.next_round_s:
            begun_s = self._clock.monotonic()
            reply = await self._call(lane, "remind", lane.cursor, REPEATS_PER_CALL)
            if not isinstance(reply, list):
                return reply
            if reply[0] == "full":  # published by others meanwhile; the round goes on where it was
                return await self._publish(lane)
            lane.cursor = reply[1].decode()
            if lane.cursor == "0":
                lane.next_round_s = begun_s + self._repeat_s
            if reply[2]:
                outcome = await self._publish(lane)
                if outcome is not None:
                    return outcome
        return None

    async def _call(self, lane: _Lane, name: str, *args: str | int) -> Reply | Trouble:
        keys = self._functions.keys.all(lane.partition, lane.incarnation)
        return await self._functions.call(
            name, keys, lane.incarnation, lane.owner.epoch, lane.owner.nonce, *args
        )


def _readable(partition: int, entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> Iterator[tuple[str, StoredSignal]]:
    """Entries by stream id, but for those that another hand wrote, or whose numbers it caused: nobody can tell them.
    What they would have said of a balance is told by the repeats."""
    for stream_id, fields in entries:
        try:
            yield stream_id.decode(), StoredSignal.unpack(fields[1])
        except (msgspec.MsgspecError, ValueError, LookupError):
            log.exception("signals.unreadable", partition=partition, entry=stream_id.decode())


def _after(stream_id: str) -> str:
    """The smallest stream id above `stream_id`: trimming keeps from there."""
    milliseconds, sequence = stream_id.split("-")
    return f"{milliseconds}-{int(sequence) + 1}"
