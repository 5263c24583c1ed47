"""What a soak looks at, once per dedupe generation, and whether it stays flat. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from billing.lab.checks import Check

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Look:
    """One moment of the deployment, all partitions together; sizes in bytes."""

    seconds: float
    published: int
    behind: int  # records of the log that Redis has not taken in
    open_sessions: int
    settled_sessions: int  # remembered against duplicates
    unknown: int  # strays and accounts without a balance
    signals: int  # not yet published
    redis_bytes: int
    inflight_bytes: int
    postflight_bytes: int


@dataclass(frozen=True, slots=True)
class Bound:
    """The mean of the last third may exceed that of the third before it by so much: a share, and an amount that is
    noise on any machine."""

    name: str
    of: Callable[[Look], int]
    share: float
    slack: int


BOUNDS = (
    Bound("open sessions", lambda look: look.open_sessions, 0.25, 200),
    Bound("settled sessions", lambda look: look.settled_sessions, 0.25, 500),
    Bound("strays and unknown accounts", lambda look: look.unknown, 0.0, 50),
    Bound("signals unpublished", lambda look: look.signals, 0.0, 500),
    Bound("Redis", lambda look: look.redis_bytes, 0.08, MIB),
    Bound("in-flight process", lambda look: look.inflight_bytes, 0.05, 4 * MIB),
    Bound("post-flight process", lambda look: look.postflight_bytes, 0.05, 4 * MIB),
)
WARM_UP = 4
"""Generations until the window of remembered sessions is full."""


def flat_checks(looks: Sequence[Look]) -> list[Check]:
    """One check per bound. Needs at least WARM_UP + 4 looks."""
    steady = looks[WARM_UP:]
    half = len(steady) // 2
    checks = []
    for bound in BOUNDS:
        before, after = (sum(map(bound.of, part)) / len(part) for part in (steady[:half], steady[half:]))
        allowed = before * (1 + bound.share) + bound.slack
        seen = f"{before:,.0f}, later {after:,.0f}, at most {allowed:,.0f}"
        checks.append(Check(f"flat: {bound.name}", after <= allowed, seen))
    return checks


HEAD = (
    *("s", "published", "behind", "open", "settled", "unknown", "signals", "Redis MiB", "in-flight", "post-flight"),
)


def table(looks: Sequence[Look]) -> str:
    """Lines as they come to the screen; processes in MiB."""
    return "\n".join(
        "  ".join(cell.rjust(max(9, len(name))) for cell, name in zip(row, HEAD, strict=True))
        for row in (HEAD, *map(_row, looks))
    )


def _row(look: Look) -> tuple[str, ...]:
    counts = (look.published, look.behind, look.open_sessions, look.settled_sessions, look.unknown, look.signals)
    sizes = (look.redis_bytes, look.inflight_bytes, look.postflight_bytes)
    return (f"{look.seconds:.0f}", *(f"{count:,}" for count in counts), *(f"{size / MIB:.1f}" for size in sizes))
