"""Drives a sink from a consumer group: one membership, one lane for each owned partition (docs/architecture.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Generic

import structlog

from billing.stream import metrics
from billing.stream.backoff import Backoff
from billing.stream.ends import Ends
from billing.stream.finished import Crashed, Drained, Finished, RefusedToRun
from billing.stream.lane import Lane, LaneEnded
from billing.stream.lane_health import health
from billing.stream.lane_state import State
from billing.stream.log import LogAway, LogBroken, Membership
from billing.stream.plan import Plan
from billing.stream.sink import Op

log = structlog.get_logger(__name__)


class Runner(Generic[Op]):
    """`group` makes a new membership each time the runner joins."""

    def __init__(self, plan: Plan[Op], group: Callable[[], Membership]) -> None:
        self._plan = plan
        self._group = group
        self._membership: Membership | None = None
        self._lanes: dict[int, tuple[Lane[Op], asyncio.Task[LaneEnded]]] = {}
        self._old: dict[int, asyncio.Task[LaneEnded]] = {}  # lanes of the generation before, ending
        self._finished: Finished | None = None
        self._rejoin_reason = ""
        self._wake = asyncio.Event()  # something to do for `run`: rejoin or end
        self._ending = asyncio.Event()
        self._done = asyncio.Event()
        self._ends = Ends(plan)

    async def run(self) -> Finished:
        """Until drained, refused or crashed. Kafka or the store being away is waited for."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=5.0)
        background = [
            asyncio.create_task(self._watch(), name="watch"),
            asyncio.create_task(self._commit_regularly(), name="commit"),
        ]
        for task in background:
            task.add_done_callback(self._background_ended)
        try:
            while self._finished is None:
                self._rejoin_reason = ""
                self._wake.clear()
                joined_at = self._plan.clock.monotonic()
                if await self._join():
                    await self._wake.wait()
                await self._leave()
                if self._plan.clock.monotonic() - joined_at > 2 * self._plan.timings.verify_seconds:
                    backoff.reset()
                if self._finished is None:
                    log.warning("group.rejoin", group=self._plan.group, reason=self._rejoin_reason)
                    metrics.REJOINS.labels(self._plan.group, self._rejoin_reason).inc()
                    await self._pause(backoff.next_seconds())
        finally:
            for task in background:
                task.cancel()
            await asyncio.wait(background)
            await self._leave()
            self._done.set()
        return self._finished

    async def drain(self) -> None:
        """Finish the batch in hand, commit, leave the group; `run` returns Drained. At most about 10 s."""
        self._finish(Drained())
        try:
            async with asyncio.timeout(self._plan.timings.drain_seconds):
                await self._done.wait()
        except TimeoutError:
            log.warning("drain.overdue", group=self._plan.group)

    def snapshot(self) -> dict[str, Any]:
        """For the health endpoint (called from another thread, only reads): healthy, and each lane's state."""
        lanes = [lane for lane, _ in list(self._lanes.values())]
        return {
            "group": self._plan.group,
            "joined": self._membership is not None,
            **health(lanes, self._ends, self._plan.clock.monotonic(), ended=self._finished is not None),
        }

    # --- the group's view: Listener ---------------------------------------------------------------------

    async def revoked(self) -> None:
        """Stop every lane; a store call in hand gets a moment to end, so that the next owner starts behind it."""
        stopped = self._stop_lanes()
        if stopped:
            await asyncio.wait(stopped, timeout=self._plan.timings.revoke_seconds)

    def assigned(self, partitions: AbstractSet[int], torn: AbstractSet[int] = frozenset()) -> None:
        """Start a lane for each partition of the new generation. Partitions added refuse to run, though it be to one
        topic only (S16)."""
        membership = self._membership
        if membership is None or self._finished is not None:
            return
        self._stop_lanes()
        log.info("group.assigned", group=self._plan.group, partitions=sorted(partitions))
        highest = max(partitions | torn, default=-1)
        if highest >= self._plan.partitions:
            self._finish(RefusedToRun(f"partition {highest} assigned, {self._plan.partitions} expected"))
            return
        for partition in sorted(partitions):
            lane = Lane(self._plan, membership, partition, self._ends.fresh, predecessor=self._old.pop(partition, None))
            task = asyncio.create_task(lane.run(), name=f"lane-{partition}")
            task.add_done_callback(self._lane_ended)
            self._lanes[partition] = (lane, task)
        self._ends.own({(topic, partition) for topic in self._plan.topics for partition in partitions})

    def _stop_lanes(self) -> list[asyncio.Task[LaneEnded]]:
        for partition, (lane, task) in self._lanes.items():
            lane.stop()
            self._old[partition] = task
        self._lanes = {}
        self._old = {partition: task for partition, task in self._old.items() if not task.done()}
        self._ends.own(set())
        return list(self._old.values())

    def _lane_ended(self, task: asyncio.Task[LaneEnded]) -> None:
        current = any(task is running for _, running in self._lanes.values())
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, LogBroken):
            if current:
                self._rejoin("broken", str(error))
        elif error is not None:
            log.error("lane.crashed", group=self._plan.group, lane=task.get_name(), exc_info=error)
            self._finish(Crashed(f"{task.get_name()}: {type(error).__name__}: {error}"))
        elif task.result().why == "refused":
            self._finish(RefusedToRun(task.result().reason))
        elif current:
            self._rejoin("fenced", task.get_name())

    # --- joining and leaving ----------------------------------------------------------------------------

    async def _join(self) -> bool:
        """Wait for Kafka and the topics, then join; False when finished meanwhile."""
        backoff = Backoff(first_seconds=0.2, limit_seconds=2.0)
        while self._finished is None:
            waiting_for = await self._try_to_join()
            if self._membership is not None:
                return True
            if backoff.attempt % 10 == 0 and waiting_for:
                log.warning("kafka.waiting", group=self._plan.group, reason=waiting_for)
            await self._pause(backoff.next_seconds())
        return False

    async def _try_to_join(self) -> str:
        """What is waited for, "" when joined."""
        try:
            missing = await self._topics_missing()
            if missing or self._finished is not None:
                return missing
        except LogAway as error:
            return str(error)
        self._membership = self._group()
        try:
            await self._membership.join(self)
        except LogAway as error:
            membership, self._membership = self._membership, None
            await membership.leave()
            return str(error)
        return ""

    async def _topics_missing(self) -> str:
        """Names of topics that do not exist yet; another partition count refuses to run (S16)."""
        missing = []
        for topic in self._plan.topics:
            count = await self._plan.reader.partition_count(topic)
            if count is None:
                missing.append(topic)
            elif count != self._plan.partitions:
                self._finish(RefusedToRun(f"{topic} has {count} partitions, {self._plan.partitions} expected"))
        return f"no such topic: {', '.join(missing)} (billing migrate creates it)" if missing else ""

    async def _leave(self) -> None:
        """Let the store calls in hand end, commit, leave."""
        membership = self._membership
        if membership is None:
            return
        lanes = [lane for lane, _ in self._lanes.values()]
        stopped = self._stop_lanes()
        if stopped:
            _, late = await asyncio.wait(stopped, timeout=0.4 * self._plan.timings.drain_seconds)
            for task in late:  # the outcome of its store call stays unknown; the sink's position will tell (S39)
                task.cancel()
        await self._commit(membership, lanes, 0.1 * self._plan.timings.drain_seconds)
        self._membership = None
        await membership.leave()

    def _rejoin(self, reason: str, detail: str) -> None:
        if not self._rejoin_reason:
            self._rejoin_reason = reason
            log.warning("membership.lost", group=self._plan.group, reason=reason, detail=detail)
        self._wake.set()

    def _finish(self, finished: Finished) -> None:
        if self._finished is None:
            self._finished = finished
        self._ending.set()
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        ending = asyncio.create_task(self._ending.wait())
        sleeping = asyncio.ensure_future(self._plan.clock.sleep(seconds))
        await asyncio.wait([ending, sleeping], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        sleeping.cancel()

    # --- in the background: ends and lag, a dead client, commits ------------------------------------------

    async def _watch(self) -> None:
        while True:
            await self._plan.clock.sleep(self._plan.timings.ends_seconds)
            if self._membership is None:
                continue
            try:
                self._membership.check()
            except LogBroken as error:
                self._rejoin("broken", str(error))
                continue
            await self._ends.refresh()
            stuck = self._ends.observe(
                {
                    (topic, lane.state.partition): position.offset
                    for lane, _ in self._lanes.values()
                    if lane.state.state is State.RUNNING
                    for topic, position in lane.state.positions.items()
                }
            )
            if stuck is not None:
                self._rejoin("stalled", f"{stuck[0]}-{stuck[1]}")

    async def _commit_regularly(self) -> None:
        while True:
            await self._plan.clock.sleep(self._plan.timings.commit_seconds)
            if self._membership is not None:
                lanes = [lane for lane, _ in self._lanes.values()]
                await self._commit(self._membership, lanes, self._plan.timings.commit_deadline_seconds)

    async def _commit(self, membership: Membership, lanes: list[Lane[Op]], deadline_seconds: float) -> None:
        """For tools that show lag; a failure changes nothing, so it is only said."""
        offsets = {
            (topic, lane.state.partition): position.offset
            for lane in lanes
            for topic, position in lane.state.positions.items()
        }
        if not offsets:
            return
        try:
            async with asyncio.timeout(deadline_seconds):
                await membership.commit(offsets)
        except (LogAway, LogBroken, TimeoutError) as error:
            metrics.COMMIT_FAILURES.labels(self._plan.group).inc()
            log.info("commit.failed", group=self._plan.group, error=str(error) or type(error).__name__)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("runner.crashed", group=self._plan.group, exc_info=error)
            self._finish(Crashed(f"{task.get_name()}: {type(error).__name__}: {error}"))
