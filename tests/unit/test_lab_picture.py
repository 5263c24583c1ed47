"""The demo's picture: it can be drawn of any run, and says what to do where it cannot."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from billing.lab.observe import Moment
from billing.lab.picture import NoMatplotlib, check_matplotlib, draw
from billing.lab.report import Report

WIPED = {"struck": 4.0, "recovering": 8.0, "recovered": 9.0, "signals": 90.0, "refused": 80.0}


def _report(wiped: dict[str, float]) -> Report:
    report = Report(seed=1, began=100.0, wiped=wiped)
    for tick in range(-2, 40):
        known = not wiped or not wiped["struck"] < tick / 2 < wiped["recovered"]
        report.moments.append(
            Moment(
                100.0 + tick / 2,
                known=200 if known else 0,
                why_unknown=Counter() if known else Counter(empty=200),
                published=1000 * tick,
                settled=1000 * tick,
                applied=1000 * tick if known else 4000,
                charged=tick // 3,
            )
        )
    return report


@pytest.mark.parametrize("wiped", [{}, WIPED], ids=["plain", "wiped"])
def test_a_run_is_drawn_as_png(tmp_path: Path, wiped: dict[str, float]) -> None:
    draw(_report(wiped), tmp_path / "docs" / "run.png")
    assert (tmp_path / "docs" / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_ended_at_once_is_drawn_too(tmp_path: Path) -> None:
    draw(Report(seed=1, began=100.0, moments=[Moment(100.5)]), tmp_path / "run.png")
    assert (tmp_path / "run.png").exists()


def test_without_matplotlib_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    check_matplotlib()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NoMatplotlib, match="make install"):
        check_matplotlib()
