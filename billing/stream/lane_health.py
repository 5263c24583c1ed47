"""What a health endpoint shows of a runner's lanes. Called from another thread: reads, changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from billing.stream.ends import Ends
from billing.stream.lane import Lane
from billing.stream.lane_state import State
from billing.stream.sink import Op

WELL = frozenset({State.RUNNING, State.CLAIMING, State.VERIFYING, State.CATCHING_UP})


def health(lanes: Sequence[Lane[Op]], ends: Ends[Op], now: float, *, ended: bool) -> dict[str, Any]:
    """Healthy is: not ended, and no lane waits for a store, a horizon, a rebuild or an operator."""
    return {
        "healthy": not ended and all(lane.state.state in WELL for lane in lanes),
        "kafka_away": ends.away,
        "lanes": [_view(lane, ends, now) for lane in sorted(lanes, key=lambda lane: lane.state.partition)],
    }


def _view(lane: Lane[Op], ends: Ends[Op], now: float) -> dict[str, Any]:
    state = lane.state
    positions = {topic: position.offset for topic, position in list(state.positions.items())}
    return {
        "partition": state.partition,
        "state": state.state.value,
        "reason": state.reason,
        "positions": positions,
        "lag": {topic: ends.lag(topic, state.partition, offset) for topic, offset in positions.items()},
        "seconds_since_applied": None if state.applied_at is None else round(now - state.applied_at, 1),
    }
