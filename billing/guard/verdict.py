"""From what a look saw to a verdict: named findings in their fixed order; any that refuses makes it unhealthy. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from billing.balance.balances import Unknown
from billing.guard.chain import named
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


def judge_all(
    looked: Sequence[Observation], expected: Expected, memories: Mapping[str, Memory], *, at_s: float
) -> tuple[GuardVerdict, dict[str, Memory]]:
    """The verdict on a store of several primaries, and what to remember of each by its place. Positions are remembered
    of the whole: a partition may move from one primary to another."""
    verdicts: list[tuple[str, GuardVerdict]] = []
    remembered: dict[str, Memory] = {}
    positions = next(iter(memories.values()), Memory()).positions
    for seen in looked:
        memory = replace(memories.get(seen.place, Memory()), positions=positions)
        verdict, after = judge(seen, expected, memory, at_s=at_s)
        verdicts.append((seen.place, verdict))
        remembered[seen.place], positions = after, after.positions
    shared = {place: replace(memory, positions=positions) for place, memory in {**memories, **remembered}.items()}
    if len(looked) == 1:
        return verdicts[0][1], shared
    return GuardVerdict(_joined(verdicts), _joined_summary(verdicts, looked), at_s), shared


def _joined(verdicts: Sequence[tuple[str, GuardVerdict]]) -> tuple[Found, ...]:
    """One of each finding, with where it is."""
    details: dict[Finding, dict[str, list[str]]] = {}
    for place, verdict in verdicts:
        for found in verdict.findings:
            details.setdefault(found.finding, {}).setdefault(found.detail, []).append(place)
    return tuple(
        Found(finding, "; ".join(_placed(detail, places, len(verdicts)) for detail, places in details[finding].items()))
        for finding, _ in RULES
        if finding in details
    )


def _placed(detail: str, places: Sequence[str], count: int) -> str:
    return detail if len(places) == count or not any(places) else f"{', '.join(places)}: {detail}"


def _joined_summary(
    verdicts: Sequence[tuple[str, GuardVerdict]], looked: Sequence[Observation]
) -> dict[str, object]:
    first = next((seen for seen in looked if seen.timeline), looked[0])
    views = [view for seen in looked for view in seen.partitions.values()]
    unknown = sum(isinstance(view, Unknown) for view in views)
    return {
        "server": ", ".join(sorted({seen.server for seen in looked if seen.server})),
        "keys": sum(seen.keys or 0 for seen in looked),
        "timeline": first.timeline,
        "incarnation": first.incarnation,
        "partitions": {"known": len(views) - unknown, "unknown": unknown},
        "primaries": {place: dict(verdict.seen) for place, verdict in verdicts if place},
    }


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
        return {"away": seen.away, **_around(seen)}
    shown: dict[str, object] = {"server": seen.server}
    shown.update({name: seen.info[name] for name in _FROM_INFO if name in seen.info})
    shown.update({"keys": seen.keys, "timeline": seen.timeline, "incarnation": seen.incarnation})
    if seen.config is not None:
        shown["config"] = dict(seen.config)
    unknown = sum(isinstance(view, Unknown) for view in seen.partitions.values())
    shown["partitions"] = {"known": len(seen.partitions) - unknown, "unknown": unknown}
    return {**shown, **_around(seen)}


def _around(seen: Observation) -> dict[str, object]:
    """The servers around it, by address."""
    shown = {}
    for node in seen.around:
        follows = named(node.follows) if node.follows else None
        known = {"follows": follows, "link": node.link, "offset": node.offset}
        shown[named(node.host)] = {"away": node.away} if node.away else known
    return {"around": shown} if shown else {}
