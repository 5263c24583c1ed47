"""A lane's place in its logs: fetching from the sink's positions, and making sure that it is still the same log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic

import structlog

from billing.stream import metrics
from billing.stream.backoff import Backoff
from billing.stream.lane_state import LaneState, State, Step
from billing.stream.log import Fetched, Log, LogAway, OutOfRange
from billing.stream.plan import Plan
from billing.stream.sink import Op
from billing.stream.verify import AtEndOfRetention, Matches, Mismatch, Verdict, check_position

log = structlog.get_logger(__name__)

DISAGREED_SECONDS = 0.01
"""Before a look at records that are there and could not be taken."""


class Cursor(Generic[Op]):
    """Reads one partition of the plan's topics; `state.positions` says from where."""

    def __init__(self, plan: Plan[Op], reading: Log, state: LaneState) -> None:
        self._plan = plan
        self._log = reading
        self._state = state
        self._away = Backoff()
        self._leaders: dict[str, object] = {}  # of whom the log was verified last

    async def verify(self, topic: str, *, seek: bool, held: bool = False) -> Step:
        """Compare the position's fingerprint with the log; GO_ON or HALTED. With `seek`, go on from there; without,
        this is the regular look. `held`: at a position that we have been reading from.

        Kafka being away is waited for, not judged. A mismatch is looked at twice, because it stops a partition.
        """
        suspected = False
        leader = self._log.leader(topic, self._state.partition)  # should it change meanwhile, this is done again
        while True:
            verdict = await self._check(topic, held=held or not seek)
            if not isinstance(verdict, Mismatch):
                break
            if suspected:
                return await self._halt(topic, verdict.reason)
            suspected = True
            await self._sleep(self._plan.timings.confirm_seconds)
        if isinstance(verdict, AtEndOfRetention):
            log.warning("position.unproven", group=self._plan.group, topic=topic, partition=self._state.partition)
        elif verdict.log_time_ms is not None:
            self._state.log_times_ms[topic] = verdict.log_time_ms
        if seek or leader != self._leaders.get(topic):  # of another leader, what was fetched before is dropped
            self.seek(topic)
        self._leaders[topic] = leader
        return Step.GO_ON

    def seek(self, topic: str) -> None:
        """The next fetch of this topic begins at the sink's position."""
        self._log.seek(topic, self._state.partition, self._state.positions[topic].offset)

    async def next(self, topics: Sequence[str], wait_seconds: float) -> Mapping[str, Fetched] | Step:
        """The first records, for `more` to go on with, of the first of these topics that has any, else of whatever
        comes first within the time."""
        at_hand = self._at_hand(topics)
        if at_hand is None:
            with self._state.waiting():
                await self._log.wait(self._state.partition, topics, int(wait_seconds * 1000))
            at_hand = self._at_hand(topics)
        if at_hand is None:
            return await self._fetch(topics)
        fetched = self.more(at_hand, self._state.positions[at_hand].offset, self._plan.first_piece(at_hand))
        if fetched is not None:
            return {at_hand: fetched}
        await self._sleep(DISAGREED_SECONDS)  # whatever it is, it is not looked at in a loop
        return await self._fetch((at_hand,))

    def _at_hand(self, topics: Sequence[str]) -> str | None:
        return next((topic for topic in topics if self._log.at_hand(topic, self._state.partition)), None)

    async def _fetch(self, topics: Sequence[str]) -> Mapping[str, Fetched] | Step:
        """What there is of these topics from the positions on, and what only the client can say: that it is away, or
        stands elsewhere."""
        limit = min(self._plan.first_piece(topic) for topic in topics)
        try:
            with self._state.waiting():
                fetched = await self._log.fetch(self._state.partition, topics, max_records=limit)
        except OutOfRange:
            return await self._out_of_range(topics)
        except LogAway as error:
            await self._wait_for_log(error)
            return {}
        self._away.reset()
        for topic in topics:
            if self._log.leader(topic, self._state.partition) != self._leaders.get(topic):
                return await self._other_leader(topics)
        return {topic: part for topic, part in fetched.items() if self._continues(topic, part)}

    def more(self, topic: str, from_offset: int, most: int) -> Fetched | None:
        """Up to `most` records from `from_offset` on, holes included, where the client has them already and they come
        from the leader that was verified last; None where only `fetch` can go on."""
        fetched = self._log.take(topic, self._state.partition, most)
        if fetched is None or self._log.leader(topic, self._state.partition) != self._leaders.get(topic):
            return None
        self._away.reset()
        # what was taken and is not used is missing at the next fetch, which then seeks
        return fetched if fetched.from_offset == from_offset else None

    async def end(self, topic: str) -> int:
        """The topic's end now, waiting while Kafka is away."""
        pair = (topic, self._state.partition)
        while True:
            try:
                with self._state.waiting():
                    ends = await self._plan.reader.ends([pair])
                return ends[pair]
            except LogAway as error:
                await self._wait_for_log(error)

    def _continues(self, topic: str, fetched: Fetched) -> bool:
        """The client's own position must be ours: whatever moved it (a lost fetch, a reset) must not skip records."""
        expected = self._state.positions[topic].offset
        if fetched.from_offset == expected:
            return True
        log.warning(
            "fetch.elsewhere",
            topic=topic,
            partition=self._state.partition,
            found=fetched.from_offset,
            expected=expected,
        )
        self.seek(topic)
        return False

    async def _other_leader(self, topics: Sequence[str]) -> Mapping[str, Fetched] | Step:
        """The log may have been cut and be longer than our position again: then what is read next is no longer what
        follows our last record, and in a moment nothing would show it any more (S17). What was fetched is dropped."""
        for topic in topics:
            step = await self.verify(topic, seek=True, held=True)
            if step is not Step.GO_ON:
                return step
        return {}

    async def _check(self, topic: str, *, held: bool) -> Verdict:
        position = self._state.positions[topic]
        while True:
            try:
                with self._state.waiting():
                    verdict = await check_position(self._plan.reader, topic, self._state.partition, position, held=held)
            except LogAway as error:
                await self._wait_for_log(error)
                continue
            self._away.reset()
            name = {Matches: "matches", AtEndOfRetention: "at_end_of_retention", Mismatch: "mismatch"}[type(verdict)]
            metrics.CHECKS.labels(self._plan.group, name).inc()
            return verdict

    async def _halt(self, topic: str, reason: str) -> Step:
        reason = f"{topic}: {reason}"
        self._state.become(State.HALTED, reason)
        assert self._state.owner is not None  # nothing is verified before it is claimed
        await self._plan.sink.halt(self._state.owner, self._state.partition, reason)
        return Step.HALTED

    async def _out_of_range(self, topics: Sequence[str]) -> Step:
        for topic in topics:
            step = await self.verify(topic, seek=True)
            if step is not Step.GO_ON:
                return step
        await self._sleep(self._plan.timings.confirm_seconds)  # the check disagrees with the broker: not in a hurry
        return Step.GO_ON

    async def _wait_for_log(self, error: LogAway) -> None:
        delay = self._away.next_seconds()
        if self._away.attempt == 1:
            log.warning("kafka.away", group=self._plan.group, partition=self._state.partition, error=str(error))
        await self._sleep(delay)

    async def _sleep(self, seconds: float) -> None:
        with self._state.waiting():
            await self._plan.clock.sleep(seconds)
