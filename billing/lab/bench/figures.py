"""Figures of several runs as a table: on the terminal, as Markdown for the documentation, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from billing.lab.bench.stats import spread

HEADER = "| | median | lowest – highest | asked |"  # noqa: RUF001

Values = Mapping[str, float]
"""One run's figures by key."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: `key` in the values and in JSON, how many decimals, what the issue asks for ("" for nothing)."""

    key: str
    label: str
    unit: str = ""
    decimals: int = 0
    asked: str = ""

    def show(self, value: float) -> str:
        return f"{value:,.{self.decimals}f}"


CORES = (
    Figure("core_turns", "the machine before the run: a loop of Python alone", "million turns/s", 1),
    Figure("cores_worth", "  two at once, of what one makes alone", "times", 2),
)
"""Of `billing.lab.bench.cores`."""


@dataclass(frozen=True)
class Report:
    """All runs of one benchmark. `conditions` are what the figures hold for: machine, servers' settings, sizes."""

    title: str
    figures: Sequence[Figure]
    runs: Sequence[Values]
    conditions: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(label, median with its unit, lowest to highest, asked); figures that no run has are left out."""
        rows = []
        for figure in self.figures:
            values = [run[figure.key] for run in self.runs if figure.key in run]
            if values:
                found = spread(values)
                reach = f"{figure.show(found.low)} – {figure.show(found.high)}" if len(values) > 1 else ""  # noqa: RUF001
                rows.append((figure.label, f"{figure.show(found.median)} {figure.unit}".strip(), reach, figure.asked))
        return rows

    def table(self) -> Table:
        """For the terminal."""
        table = Table(title=f"{self.title} ({self._runs()})", title_justify="left")
        for name, justify in (("", "left"), ("median", "right"), ("lowest – highest", "right"), ("asked", "right")):  # noqa: RUF001
            table.add_column(name, justify="right" if justify == "right" else "left")
        for row in self.rows():
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The same, ready for docs/performance.md."""
        lines = [f"**{self.title}** ({self._runs()})", "", HEADER, "|---|--:|--:|--:|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows()]
        lines += ["", "; ".join(f"{name} {value}" for name, value in self.conditions.items()) + "."]
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Medians and every run's values, in full precision."""
        figures = {}
        for figure in self.figures:
            values = [run[figure.key] for run in self.runs if figure.key in run]
            if values:
                found = spread(values)
                figures[figure.key] = {
                    **{"label": figure.label, "unit": figure.unit, "asked": figure.asked},
                    **{"median": found.median, "lowest": found.low, "highest": found.high, "runs": values},
                }
        return {"title": self.title, "runs": len(self.runs), "conditions": dict(self.conditions), "figures": figures}

    def _runs(self) -> str:
        return "one run" if len(self.runs) == 1 else f"medians of {len(self.runs)} runs"
