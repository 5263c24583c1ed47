"""What the demo found: for people, and as JSON for scripts (`DEMO_REPORT`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from billing.lab.checks import Check
from billing.lab.measure import Throughput


@dataclass
class Report:
    """Filled while the run goes on. `events` are counts of records; `accounts` says how many there are and how many
    have the same balance in both books; `seconds` are durations by phase."""

    seed: int
    checks: list[Check] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)
    throughput: dict[str, Throughput] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    killed: list[str] = field(default_factory=list)

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
            "killed": self.killed,
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
        lines += ["Seconds"]
        lines += _columns({name.replace("_", " "): f"{seconds:.1f}" for name, seconds in self.seconds.items()})
        if self.killed:
            lines += [f"Killed with SIGKILL and started again: {', '.join(self.killed)}"]
        lines += ["Checks"]
        lines += [f"  {'ok  ' if c.passed else 'FAIL'}  {c.name.replace('_', ' ')}: {c.detail}" for c in self.checks]
        verdict = "All checks passed." if self.ok else f"FAILED: {', '.join(self.failed) or 'nothing was checked'}"
        return "\n".join([*lines, "", verdict])


def _columns(rows: Mapping[str, str]) -> Sequence[str]:
    width = max(map(len, rows), default=0)
    right = max((len(value) for value in rows.values() if value.replace(",", "").replace(".", "").isdigit()), default=0)
    return [f"  {name:<{width}}  {value:>{right}}" for name, value in rows.items()]
