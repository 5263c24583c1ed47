"""What a consumer is made of: given once to the runner, shared by its lanes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

from billing.stream.backoff import Clock, SystemClock
from billing.stream.log import Reader
from billing.stream.preparing import Preparing
from billing.stream.sink import Interpreter, Op, Sink

DEFAULT_MAX_RECORDS = 500


@dataclass(frozen=True, slots=True)
class Timings:
    """How often and how long; all in seconds. Tests shorten them."""

    idle_wait_seconds: float = 0.25  # how long a lane without records waits before it looks at its duties
    tend_seconds: float = 1.0
    verify_seconds: float = 30.0
    tick_seconds: float = 10.0  # quiet time of the usage partition after which a tick is appended
    tick_deadline_seconds: float = 5.0
    ends_seconds: float = 1.0  # how often the ends of all owned logs are read
    ends_fresh_seconds: float = 3.0  # an older reading of the end proves nothing
    commit_seconds: float = 5.0
    commit_deadline_seconds: float = 5.0
    horizon_deadline_seconds: float = 10.0  # each wait for the horizon is this long, then said and begun again
    catch_up_deadline_seconds: float = 30.0  # the same for another topic's end
    claim_limit_seconds: float = 2.0  # the longest back-off between claims
    halted_seconds: float = 10.0  # between looks whether an operator has cleared a halt
    confirm_seconds: float = 0.5  # a mismatch is looked at twice before it halts
    revoke_seconds: float = 2.0  # for the batch in hand when partitions are taken away
    drain_seconds: float = 10.0  # for everything at SIGTERM
    stalled_seconds: float = 60.0  # records are there but none arrive: the client is stuck, join again


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[Op]):
    """`topics` are in order of priority: a lane reads a later one only when the earlier ones are drained.

    `catch_up(topic)` returns once that topic, not one of ours, was read to the end it had at the call;
    `await_horizon(ms)` once the catalogue's horizon reaches ms; `ticker(partition)` appends one tick to `tick_topic`.
    All three may raise LogAway and are cancelled at their deadlines.
    """

    group: str
    topics: Sequence[str]
    partitions: int
    sink: Sink[Op]
    interpreters: Mapping[str, Interpreter[Op]]
    reader: Reader
    max_records: Mapping[str, int] = field(default_factory=dict)
    catch_up: Callable[[str], Awaitable[None]] | None = None
    await_horizon: Callable[[int], Awaitable[None]] | None = None
    ticker: Callable[[int], Awaitable[None]] | None = None
    tick_topic: str | None = None
    timings: Timings = field(default_factory=Timings)
    clock: Clock = field(default_factory=SystemClock)
    preparing: Preparing = field(default_factory=Preparing)

    def __post_init__(self) -> None:
        missing = [topic for topic in self.topics if topic not in self.interpreters]
        if not self.topics or missing:
            raise ValueError(f"every topic needs an interpreter; missing for {missing or 'all'}")

    def batch_limit(self, topic: str) -> int:
        """The most records of this topic in one batch; bounds what one apply holds."""
        return self.max_records.get(topic, DEFAULT_MAX_RECORDS)

    def first_piece(self, topic: str) -> int:
        """With how many records of this topic a batch begins; the others are taken as they are interpreted."""
        return min(self.batch_limit(topic), self.preparing.piece)
