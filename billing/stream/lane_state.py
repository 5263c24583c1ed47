"""What is known of one owned partition, and how its work is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, StrEnum, auto
from typing import Any

import structlog

from billing.stream import metrics
from billing.stream.record import Position
from billing.stream.sink import Fenced, Halted, Owner, Refused, Uninitialised

log = structlog.get_logger(__name__)


class State(StrEnum):
    """Each member's comment says what the lane waits for."""

    CLAIMING = "claiming"  # the sink's answer to our claim
    VERIFYING = "verifying"  # the log, to compare fingerprints
    RUNNING = "running"  # records
    CATCHING_UP = "catching_up"  # another topic's end
    HORIZON = "horizon"  # the catalogue's horizon
    SINK_AWAY = "sink_away"  # the sink to answer, or to be writable
    UNINITIALISED = "uninitialised"  # a rebuild
    HALTED = "halted"  # an operator
    STOPPED = "stopped"  # nothing: the lane has ended


class Step(Enum):
    """What a piece of a lane's work ended with; everything but GO_ON and SOUGHT ends the work under this claim."""

    GO_ON = auto()
    SOUGHT = auto()  # the topic was sought to the sink's position: what was in hand of it is dropped
    RECLAIM = auto()  # the store is uninitialised: claim again
    HALTED = auto()
    FENCED = auto()
    REFUSED = auto()


class LaneState:
    """One partition's owner, positions and state. `reason` explains states that are not RUNNING."""

    def __init__(self, group: str, partition: int) -> None:
        self.group = group
        self.partition = partition
        self.owner: Owner | None = None
        self.positions: dict[str, Position] = {}
        self.log_times_ms: dict[str, int] = {}  # timestamp of the last record consumed, where known
        self.applied_at: float | None = None  # monotonic seconds of the last Applied
        self.state = State.STOPPED
        self.reason = ""
        self._stopping = False
        self._waiting = False
        self._task: asyncio.Task[Any] | None = None

    def become(self, state: State, reason: str = "") -> None:
        """Change state; said once per change, loudly where someone must act."""
        if (state, reason) == (self.state, self.reason):
            return
        if state is not self.state:
            metrics.LANES.labels(self.group, self.state.value).dec()
            metrics.LANES.labels(self.group, state.value).inc()
            metrics.HALTED.labels(self.group, self.partition).set(state is State.HALTED)
        quiet = state in (State.CLAIMING, State.VERIFYING, State.CATCHING_UP, State.STOPPED)
        say = log.error if state is State.HALTED else log.debug if quiet else log.info if not reason else log.warning
        say("lane.state", group=self.group, partition=self.partition, state=state.value, reason=reason)
        self.state, self.reason = state, reason

    # --- stopping: waits are interrupted, store calls are not (a cancelled one has an unknown outcome, S39) ---

    def started(self) -> None:
        """Called by the lane's task when it begins."""
        self._task = asyncio.current_task()
        metrics.LANES.labels(self.group, self.state.value).inc()

    def ended(self) -> None:
        """Called by the lane's task when it ends."""
        self.become(State.STOPPED)
        metrics.LANES.labels(self.group, self.state.value).dec()
        self._task = None

    def stop(self) -> None:
        """End the lane after the store call in hand, if any: its task ends as cancelled."""
        self._stopping = True
        if self._waiting and self._task is not None:
            self._task.cancel()

    def check_stop(self) -> None:
        """Raises CancelledError once stop() was called."""
        if self._stopping:
            raise asyncio.CancelledError

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around an await that stop() may interrupt: everything but calls of the sink."""
        self.check_stop()
        outer, self._waiting = self._waiting, True
        try:
            yield
        finally:
            self._waiting = outer


def settle_claim(state: LaneState, answer: Refused | Halted | Uninitialised | Fenced) -> Step:
    """The answers that end a claim, whichever call they came from."""
    match answer:
        case Refused(reason):
            state.become(State.STOPPED, reason)
            return Step.REFUSED
        case Halted(reason):
            state.become(State.HALTED, reason)
            return Step.HALTED
        case Uninitialised(reason):
            state.become(State.UNINITIALISED, reason)
            return Step.RECLAIM
        case Fenced():
            state.become(State.STOPPED, "fenced by a newer owner")
            return Step.FENCED
