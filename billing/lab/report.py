"""What the demo found: for people, and as JSON for scripts (`DEMO_REPORT`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from billing.lab.checks import Check
from billing.lab.keeper import Restart
from billing.lab.measure import Throughput
from billing.lab.observe import Moment


@dataclass
class Recharges:
    """What became of low balances. `succeeded` payments at the gateway; `declined` cards, when charged or when saved;
    `refused` evaluations by the name of the refusal; `seconds` from low to confirmed: median, p99."""

    succeeded: int = 0
    declined: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    suspended: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "succeeded": self.succeeded,
            "declined": self.declined,
            "refused": self.refused,
            "suspended": self.suspended,
            "seconds_to_confirmed": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }


@dataclass
class Report:
    """Filled while the run goes on. `events` are counts of records; `accounts` says how many there are and how many
    have the same balance in both books; `seconds` are durations by phase. `wiped`: when Redis was emptied and when
    all was well again, in seconds since `began` (`time.monotonic()`), when publishing did, and how often a recharge was
    asked for and refused meanwhile; `moments` are for a picture."""

    seed: int
    checks: list[Check] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)
    throughput: dict[str, Throughput] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    recharges: Recharges = field(default_factory=Recharges)
    killed: list[str] = field(default_factory=list)
    restarted: list[Restart] = field(default_factory=list)
    wiped: dict[str, float] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    began: float = 0.0

    @property
    def ok(self) -> bool:
        """Every check passed, and there were some."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[str]:
        """Names of the checks that did not pass."""
        return [check.name for check in self.checks if not check.passed]

    def as_json(self) -> dict[str, Any]:
        """The document of `DEMO_REPORT`."""
        return {
            "ok": self.ok,
            "checks": {check.name: check.passed for check in self.checks},
            "details": {check.name: check.detail for check in self.checks},
            "events": {**self.events, "dead_letters_by_reason": self.dead_letters},
            "accounts": self.accounts,
            "throughput": {
                name: {"mean_per_second": rate.mean, "peak_per_second": rate.peak}
                for name, rate in self.throughput.items()
            },
            "seconds": {name: round(seconds, 2) for name, seconds in self.seconds.items()},
            "recharges": self.recharges.as_json(),
            "killed": self.killed,
            "restarted": [restart._asdict() for restart in self.restarted],
            "wiped": {name: round(value, 2) for name, value in self.wiped.items()},
            "seed": self.seed,
        }

    def write(self, path: Path) -> None:
        """Write the JSON; the file appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".part")
        draft.write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)

    def text(self) -> str:
        """For people: counts, rates, then every check, the verdict last."""
        lines = ["", "Events"]
        lines += _columns({name.replace("_", " "): f"{count:,}" for name, count in self.events.items()})
        if self.dead_letters:
            lines += ["Dead letters"]
            lines += _columns({reason: f"{count:,}" for reason, count in sorted(self.dead_letters.items())})
        lines += ["Throughput while publishing (events a second)"]
        lines += _columns(
            {
                name: f"{rate.mean:,} on average, {rate.peak:,} in the best second"
                for name, rate in self.throughput.items()
            }
        )
        lines += _recharge_lines(self.recharges)
        lines += ["Seconds"]
        lines += _columns({name.replace("_", " "): f"{seconds:.1f}" for name, seconds in self.seconds.items()})
        if self.restarted:
            lines += [f"Ended and started again: {', '.join(map(str, self.restarted))}"]
        lines += ["Checks"]
        lines += [f"  {'ok  ' if c.passed else 'FAIL'}  {c.name.replace('_', ' ')}: {c.detail}" for c in self.checks]
        verdict = "All checks passed." if self.ok else f"FAILED: {', '.join(self.failed) or 'nothing was checked'}"
        return "\n".join([*lines, "", verdict])


def _recharge_lines(recharges: Recharges) -> list[str]:
    refused = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(recharges.refused.items()))
    seconds = ", ".join(f"{name} {seconds:.2f}" for name, seconds in recharges.seconds.items())
    rows = {"payments succeeded": f"{recharges.succeeded:,}", "cards declined": f"{recharges.declined:,}"}
    rows |= {"accounts suspended": f"{recharges.suspended:,}"}
    lines = ["Recharges", *_columns(rows)]
    if seconds:
        lines += [f"  seconds from low balance to confirmed: {seconds}"]
    if refused:
        lines += [f"  evaluations refused: {refused}"]
    return lines


def _columns(rows: Mapping[str, str]) -> Sequence[str]:
    width = max(map(len, rows), default=0)
    right = max((len(value) for value in rows.values() if value.replace(",", "").replace(".", "").isdigit()), default=0)
    return [f"  {name:<{width}}  {value:>{right}}" for name, value in rows.items()]
