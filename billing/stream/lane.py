"""One owned partition from claim to stop: claim, verify, seek, then fetch and deliver, with duties in between."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal

import structlog

from billing.stream import metrics
from billing.stream.backoff import Backoff
from billing.stream.cursor import Cursor
from billing.stream.delivery import Delivery
from billing.stream.lane_state import LaneState, State, Step, settle_claim
from billing.stream.log import Fetched, Log, LogAway
from billing.stream.plan import Plan
from billing.stream.record import Position
from billing.stream.sink import Claimed, Halted, Op, ReadOnly, Refused, Tended, Unavailable, Uninitialised

log = structlog.get_logger(__name__)

FreshEnd = Callable[[str, int], "int | None"]
"""The end of (topic, partition) as read a moment ago; None when it has not been read lately."""


@dataclass(frozen=True, slots=True)
class LaneEnded:
    """Why a lane ended by itself. A halted lane does not end: it waits for an operator."""

    why: Literal["fenced", "refused"]
    reason: str


class Lane(Generic[Op]):
    """Owns all of the plan's topics of one partition for one generation of the group."""

    def __init__(
        self,
        plan: Plan[Op],
        reading: Log,
        partition: int,
        fresh_end: FreshEnd,
        *,
        predecessor: asyncio.Task[Any] | None = None,
    ) -> None:
        self.state = LaneState(plan.group, partition)
        self._plan = plan
        self._partition = partition
        self._fresh_end = fresh_end
        self._predecessor = predecessor
        self._nonce = secrets.token_hex(8)
        self._cursor = Cursor(plan, reading, self.state)
        self._delivery = Delivery(plan, self._cursor, self.state)
        self._open_holds = False
        self._next_tend = self._next_verify = 0.0
        self._quiet_since = 0.0  # monotonic seconds of the last record of the tick topic, or the last tick
        self.progressed_at = 0.0  # monotonic seconds at which records last arrived, or the lane did something else

    def stop(self) -> None:
        """End after the store call in hand; the task that runs `run` ends as cancelled."""
        self.state.stop()

    async def run(self) -> LaneEnded:
        """Until stopped, fenced or refused. Raises LogBroken when the client is dead, anything else for a bug."""
        self.state.started()
        try:
            if self._predecessor is not None:  # our own earlier lane may still be inside a store call
                with self.state.waiting():
                    await asyncio.wait([self._predecessor], timeout=self._plan.timings.revoke_seconds)
            while True:
                step = await self._one_claim()
                if step is Step.FENCED:
                    return LaneEnded("fenced", self.state.reason)
                if step is Step.REFUSED:
                    return LaneEnded("refused", self.state.reason)
                if step is Step.HALTED:
                    await self._sleep(self._plan.timings.halted_seconds)
        finally:
            self.state.ended()

    async def _one_claim(self) -> Step:
        step = await self._claim()
        if step is not Step.GO_ON:
            return step
        self.state.become(State.VERIFYING)
        for topic in self._plan.topics:
            step = await self._cursor.verify(topic, seek=True)
            if step is not Step.GO_ON:
                return step
        self.state.become(State.RUNNING)
        now = self._plan.clock.monotonic()
        self._next_tend, self._next_verify = now, now + self._plan.timings.verify_seconds
        self._quiet_since = self.progressed_at = now
        return await self._work()

    async def _claim(self) -> Step:
        backoff = Backoff(limit_seconds=self._plan.timings.claim_limit_seconds)
        if self.state.state not in (State.HALTED, State.UNINITIALISED):
            self.state.become(State.CLAIMING)
        while True:
            self.state.check_stop()
            answer = await self._plan.sink.claim(self._partition, self._nonce)
            metrics.ANSWERS.labels(self._plan.group, "claim", type(answer).__name__).inc()
            match answer:
                case Claimed(owner, positions):
                    self.state.owner = owner
                    self.state.positions = {topic: positions[topic] for topic in self._plan.topics}
                    return Step.GO_ON
                case Refused() | Halted():
                    return settle_claim(self.state, answer)
                case Uninitialised(reason):
                    self.state.become(State.UNINITIALISED, reason)
                case ReadOnly(reason) | Unavailable(reason):
                    self.state.become(State.SINK_AWAY, reason)
            await self._sleep(backoff.next_seconds())

    async def _work(self) -> Step:
        while True:
            step = await self._duties()
            if step is not Step.GO_ON:
                return step
            fetched = await self._cursor.next(self._plan.topics, self._plan.timings.idle_wait_seconds)
            if isinstance(fetched, Step):
                if fetched is not Step.GO_ON:
                    return fetched
                continue
            for topic in self._plan.topics:
                if topic not in fetched:
                    continue
                step = await self._deliver(topic, fetched[topic])
                if step not in (Step.GO_ON, Step.SOUGHT):
                    return step

    async def _deliver(self, topic: str, fetched: Fetched) -> Step:
        if not _moved(fetched):
            return Step.GO_ON
        step = await self._delivery.deliver(topic, fetched)
        if step is not Step.SOUGHT:
            self.progressed_at = self._plan.clock.monotonic()
        if topic == self._plan.tick_topic and fetched.records:
            self._quiet_since = self._plan.clock.monotonic()
        return step

    # --- duties between batches -----------------------------------------------------------------------

    async def _duties(self) -> Step:
        now = self._plan.clock.monotonic()
        if now >= self._next_verify:
            self._next_verify = now + self._plan.timings.verify_seconds
            for topic in self._plan.topics:
                step = await self._cursor.verify(topic, seek=False)
                if step is not Step.GO_ON:
                    return step
        if now >= self._next_tend:
            step = await self._tend()
            self._next_tend = self._plan.clock.monotonic() + self._plan.timings.tend_seconds
            if step is not Step.GO_ON:
                return step
        if self._open_holds and now - self._quiet_since >= self._plan.timings.tick_seconds:
            await self._tick()
            self._quiet_since = now
        return Step.GO_ON

    async def _tend(self) -> Step:
        self.state.check_stop()
        assert self.state.owner is not None  # nothing is tended before it is claimed
        positions = dict(self.state.positions)
        answer = await self._plan.sink.tend(
            self.state.owner, self._partition, at_end=self._at_end(), positions=positions
        )
        if not isinstance(answer, Tended):
            metrics.ANSWERS.labels(self._plan.group, "tend", type(answer).__name__).inc()
        match answer:
            case Tended(open_holds, stands):
                self._open_holds = open_holds
                return await self._go_back(stands)
            case ReadOnly(reason) | Unavailable(reason):  # the next apply waits for it
                log.debug("tend.away", partition=self._partition, reason=reason)
            case _:
                return settle_claim(self.state, answer)
        return Step.GO_ON

    async def _go_back(self, stands: Mapping[str, Position]) -> Step:
        """The sink stands elsewhere than we believe (a failover to an older state): go on from there, though no record
        comes in that topic whose batch would be answered Behind."""
        for topic, position in stands.items():
            believed = self.state.positions.get(topic)
            if believed is None or believed == position:
                continue
            log.warning(
                "sink.elsewhere", topic=topic, partition=self._partition,
                expected=believed.offset, position=position.offset,
            )  # fmt: skip
            self.state.positions[topic] = position
            step = await self._cursor.verify(topic, seek=True)
            if step is not Step.GO_ON:
                return step
        return Step.GO_ON

    def _at_end(self) -> bool:
        """Every topic of the partition is applied to an end that was read a moment ago."""
        for topic, position in self.state.positions.items():
            end = self._fresh_end(topic, self._partition)
            if end is None or position.offset < end:
                return False
        return True

    async def _tick(self) -> None:
        if self._plan.ticker is None:
            return
        try:
            with self.state.waiting():
                async with asyncio.timeout(self._plan.timings.tick_deadline_seconds):
                    await self._plan.ticker(self._partition)
            metrics.TICKS.labels(self._plan.group).inc()
        except (TimeoutError, LogAway) as error:  # the next one comes in ten seconds
            log.warning("tick.failed", partition=self._partition, error=str(error))

    async def _sleep(self, seconds: float) -> None:
        with self.state.waiting():
            await self._plan.clock.sleep(seconds)


def _moved(fetched: Fetched) -> bool:
    """There are records, or a hole that the client has stepped over already and would not bring again."""
    return fetched.next_offset != fetched.from_offset
