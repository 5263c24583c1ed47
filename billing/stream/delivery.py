"""Records into the sink: interpret, apply, and what each of the sink's answers asks for (docs/architecture.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias

import structlog

from billing.stream import metrics
from billing.stream.backoff import Backoff
from billing.stream.cursor import Cursor
from billing.stream.lane_state import LaneState, State, Step, settle_claim
from billing.stream.log import Fetched, LogAway
from billing.stream.plan import Plan
from billing.stream.preparing import More, Prepared
from billing.stream.record import Position, fingerprint
from billing.stream.sink import (
    Applied,
    Batch,
    Behind,
    CatchUp,
    Fenced,
    Halted,
    Op,
    Owner,
    ReadOnly,
    Refused,
    Unavailable,
    Uninitialised,
)

log = structlog.get_logger(__name__)

Settled: TypeAlias = Applied | Behind | CatchUp | Fenced | Refused | Halted | Uninitialised
"""Every answer of `apply` but those that only say "not now"."""


@dataclass(frozen=True, slots=True)
class _Again:
    """A batch that goes again from this position after catching up, while its claim lasts."""

    owner: Owner
    topic: str
    from_offset: int
    records: int
    wanted: CatchUp
    backoff: Backoff

    def is_next(self, topic: str, state: LaneState) -> bool:
        """Whether the next batch of `topic` is this one."""
        return (topic, state.owner, state.positions[topic].offset) == (self.topic, self.owner, self.from_offset)


class Delivery(Generic[Op]):
    """Applies what a cursor fetched, one partition, one batch at a time."""

    def __init__(self, plan: Plan[Op], cursor: Cursor[Op], state: LaneState) -> None:
        self._plan = plan
        self._cursor = cursor
        self._state = state
        self._draining = False
        self._again: _Again | None = None

    async def deliver(self, topic: str, fetched: Fetched) -> Step:
        """Apply what was fetched of a topic and what is there behind it, up to a batch, holes included. Where the
        interpreter ends a batch sooner, what it leaves makes others, with nothing more behind it."""
        left: Fetched | None = fetched
        more: More = partial(self._cursor.more, topic)
        while left is not None:
            limit = self._limit(topic)
            with self._state.waiting():
                made = await self._plan.preparing.prepare(self._plan.interpreters[topic], left, more, limit)
            if made.next_offset > self._state.positions[topic].offset:
                step = await self._apply_prepared(topic, made)
                if step is not Step.GO_ON:
                    return step
            if made.needs_horizon_ms is not None:
                await self._await_horizon(made.needs_horizon_ms)
            left, more = made.left, _nothing_more
        return Step.GO_ON

    async def _apply_prepared(self, topic: str, made: Prepared[Op]) -> Step:
        again = self._goes_again(topic)
        batch = self._batch(topic, made, caught_up=again is not None)
        backoff = self._backoff() if again is None else again.backoff
        answer = await self._apply(batch, backoff)
        if isinstance(answer, CatchUp | Unavailable):
            wanted = _wanted(answer, None if again is None else again.wanted)
            step = await self._catch_up(wanted.topic)
            if step is Step.GO_ON:  # the verdicts may have changed: interpret again
                self._again = _Again(batch.owner, topic, batch.from_offset, made.taken, wanted, backoff)
                self._state.become(State.RUNNING)
                self._cursor.seek(topic)
                return Step.SOUGHT
            return step
        if answer is Step.GO_ON:
            metrics.RECORDS.labels(self._plan.group, topic).inc(made.taken)
            self._state.log_times_ms[topic] = batch.log_time_ms
        return answer

    def _limit(self, topic: str) -> int:
        """Of records in the next batch. One that goes again has no more than it had: what came since was not caught up
        with, and a sink that was told so would take no word about it (S46)."""
        again = self._again
        if again is not None and again.records and again.is_next(topic, self._state):
            return again.records
        return self._plan.batch_limit(topic)

    def _goes_again(self, topic: str) -> _Again | None:
        """What is known of the next batch of `topic`, where it is one that was caught up. Said once: a sink that goes
        back to the same position later has gone back in the other topic too (S05)."""
        again = self._again
        if again is None or again.topic != topic:
            return None
        self._again = None
        return again if again.is_next(topic, self._state) else None

    def _batch(self, topic: str, made: Prepared[Op], *, caught_up: bool) -> Batch[Op]:
        position = self._state.positions[topic]
        assert self._state.owner is not None  # nothing is delivered before it is claimed
        return Batch(
            owner=self._state.owner,
            topic=topic,
            partition=self._state.partition,
            from_offset=position.offset,
            to_offset=made.next_offset,
            fingerprint=position.fingerprint if made.last is None else fingerprint(made.last),
            log_time_ms=self._state.log_times_ms.get(topic, 0) if made.last is None else made.last.timestamp,
            ops=made.ops,
            caught_up=caught_up,
        )

    def _backoff(self) -> Backoff:
        return Backoff(limit_seconds=self._plan.timings.claim_limit_seconds)

    async def _apply(self, batch: Batch[Op], backoff: Backoff) -> Step | CatchUp | Unavailable:
        """One batch, again and again while the store is away; positions make that safe (S01). A batch that was caught
        up comes back as Unavailable: what it was caught up with may have moved on since, so the same operations
        might never be taken (S46)."""
        seconds = metrics.APPLY_SECONDS.labels(self._plan.group, batch.topic)
        while True:
            self._state.check_stop()
            with seconds.time():
                answer = await self._plan.sink.apply(batch)
            metrics.ANSWERS.labels(self._plan.group, "apply", type(answer).__name__).inc()
            if not isinstance(answer, ReadOnly | Unavailable):
                return await self._settle(batch, answer)
            self._state.become(State.SINK_AWAY, answer.reason)
            with self._state.waiting():
                await self._plan.clock.sleep(backoff.next_seconds())
            if batch.caught_up and isinstance(answer, Unavailable):
                return answer

    async def _settle(self, batch: Batch[Op], answer: Settled) -> Step | CatchUp:
        match answer:
            case Applied(offset):
                if offset != batch.to_offset:
                    raise RuntimeError(f"the sink applied up to {offset}, not {batch.to_offset}")
                self._state.become(State.RUNNING)
                self._state.positions[batch.topic] = Position(batch.to_offset, batch.fingerprint)
                self._state.applied_at = self._plan.clock.monotonic()
                return Step.GO_ON
            case Behind(position):
                log.info(
                    "sink.behind", topic=batch.topic, partition=batch.partition,
                    from_offset=batch.from_offset, position=position.offset,
                )  # fmt: skip
                self._state.positions[batch.topic] = position
                step = await self._cursor.verify(batch.topic, seek=True)
                return Step.SOUGHT if step is Step.GO_ON else step
            case CatchUp():
                return answer
            case _:
                return settle_claim(self._state, answer)

    async def _catch_up(self, topic: str) -> Step:
        metrics.CATCH_UPS.labels(self._plan.group, topic).inc()
        self._state.become(State.CATCHING_UP, topic)
        if topic in self._plan.topics:
            return await self._drain(topic)
        if self._plan.catch_up is None:
            raise RuntimeError(f"the sink asked for {topic}, which this consumer does not follow")
        catch_up = self._plan.catch_up
        await self._insist(lambda: catch_up(topic), self._plan.timings.catch_up_deadline_seconds)
        return Step.GO_ON

    async def _drain(self, topic: str) -> Step:
        """Apply one of the lane's own topics up to the end that it has now."""
        if self._draining:
            raise RuntimeError(f"the sink asked for {topic} while it was being caught up")
        self._draining = True
        try:
            end = await self._cursor.end(topic)
            while self._state.positions[topic].offset < end:
                fetched = await self._cursor.next((topic,), self._plan.timings.idle_wait_seconds)
                step = fetched if isinstance(fetched, Step) else Step.GO_ON
                if not isinstance(fetched, Step) and topic in fetched:
                    step = await self.deliver(topic, fetched[topic])
                if step not in (Step.GO_ON, Step.SOUGHT):
                    return step
        finally:
            self._draining = False
        return Step.GO_ON

    async def _await_horizon(self, needed_ms: int) -> None:
        if self._plan.await_horizon is None:
            raise RuntimeError("the interpreter needs a horizon, but this consumer was given none to wait for")
        self._state.become(State.HORIZON, f"catalogue horizon {needed_ms}")
        before = self._plan.clock.monotonic()
        await_horizon = self._plan.await_horizon
        await self._insist(lambda: await_horizon(needed_ms), self._plan.timings.horizon_deadline_seconds)
        metrics.HORIZON_SECONDS.labels(self._plan.group).inc(self._plan.clock.monotonic() - before)

    async def _insist(self, wait: Callable[[], Awaitable[None]], deadline_seconds: float) -> None:
        """Wait for something outside the lane; at each deadline it is said that it has not come yet."""
        backoff = Backoff()
        while True:
            try:
                with self._state.waiting():
                    async with asyncio.timeout(deadline_seconds):
                        return await wait()
            except (TimeoutError, LogAway) as error:
                log.warning(
                    "lane.still_waiting", group=self._plan.group, partition=self._state.partition,
                    state=self._state.state.value, reason=self._state.reason, error=str(error),
                )  # fmt: skip
            with self._state.waiting():
                await self._plan.clock.sleep(backoff.next_seconds())


def _nothing_more(_from_offset: int, _most: int) -> None:
    return None


def _wanted(answer: CatchUp | Unavailable, before: CatchUp | None) -> CatchUp:
    """What to catch up with; only a batch that was caught up before comes back as Unavailable."""
    if isinstance(answer, Unavailable):
        assert before is not None
        return before
    if before is not None:
        raise RuntimeError(f"the sink asked for {answer.topic} again although it was caught up")
    return answer
