"""From what a look saw to a verdict: named findings in their fixed order; any that refuses makes it unhealthy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from billing.balance.balances import Unknown
from billing.guard.expected import Expected
from billing.guard.findings import Finding, Found, Severity
from billing.guard.memory import Memory
from billing.guard.observation import Observation
from billing.guard.rules import RULES


@dataclass(frozen=True, slots=True)
class GuardVerdict:
    """`at_s` is when the look began, on the monotonic clock of this process; `seen` are plain values, fit for JSON."""

    findings: tuple[Found, ...]
    seen: Mapping[str, object]
    at_s: float

    @property
    def healthy(self) -> bool:
        """Whether money may move, as far as the store as a whole is concerned."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of the findings that refuse, the weightiest first."""
        return self._named(Severity.REFUSES)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Names of the findings that somebody should act on, though nothing is refused for them."""
        return self._named(Severity.WARNS)

    @property
    def reason(self) -> str:
        """The refusing findings in one line with what was seen, "healthy" where there are none."""
        refusing = [str(found) for found in self.findings if found.finding.severity is Severity.REFUSES]
        return "; ".join(refusing) or "healthy"

    def _named(self, severity: Severity) -> tuple[str, ...]:
        return tuple(found.finding.value for found in self.findings if found.finding.severity is severity)


def judge(seen: Observation, expected: Expected, memory: Memory, *, at_s: float) -> tuple[GuardVerdict, Memory]:
    """The verdict, and what to remember for the next look."""
    noted = memory.noting_run_id(seen.text("run_id"))
    found = []
    for finding, rule in RULES:
        detail = rule(seen, expected, noted)
        if detail is not None:
            found.append(Found(finding, detail))
    verdict = GuardVerdict(tuple(found), summary(seen), at_s)
    return verdict, noted.after(seen, healthy=verdict.healthy)


def stale(newest: GuardVerdict | None, why: str, *, at_s: float) -> GuardVerdict:
    """The verdict in place of one that is missing or too old to go by."""
    found = Found(Finding.STALE, why)
    if newest is None:
        return GuardVerdict((found,), {}, at_s)
    return replace(newest, findings=(found, *newest.findings))


_FROM_INFO = (
    "run_id",
    "role",
    "master_host",
    "master_port",
    "master_link_status",
    "connected_slaves",
    "loading",
    "uptime_in_seconds",
    "aof_enabled",
    "maxmemory_policy",
    "evicted_keys",
)


def summary(seen: Observation) -> dict[str, object]:
    """What is kept with a verdict."""
    if seen.away:
        return {"away": seen.away}
    shown: dict[str, object] = {"server": seen.server}
    shown.update({name: seen.info[name] for name in _FROM_INFO if name in seen.info})
    shown.update({"keys": seen.keys, "timeline": seen.timeline, "incarnation": seen.incarnation})
    if seen.config is not None:
        shown["config"] = dict(seen.config)
    unknown = sum(isinstance(view, Unknown) for view in seen.partitions.values())
    shown["partitions"] = {"known": len(seen.partitions) - unknown, "unknown": unknown}
    return shown
