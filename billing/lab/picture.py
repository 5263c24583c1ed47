"""A run as a picture: balances known and unknown, usage in each book, charges, over time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from billing.lab.observe import Moment
from billing.lab.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KNOWN, UNKNOWN, WIPED = "#3b7a57", "#c8c8c8", "#d62828"
REDIS, LEDGER, SENT, CHARGED = "#d1495b", "#30638e", "#999999", "#1d3557"
RATE_SECONDS = 1.0


class NoMatplotlib(RuntimeError):
    """The picture cannot be drawn; the message says what to do."""


def check_matplotlib() -> None:
    """Raises NoMatplotlib where the library is missing: it is for developers, not among the runtime's packages."""
    try:
        import matplotlib  # noqa: PLC0415, F401 - not a package of the runtime
    except ImportError:
        raise NoMatplotlib("--picture needs matplotlib: pip install matplotlib") from None


def draw(report: Report, path: Path) -> None:
    """Write the picture of a run as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - not a package of the runtime
    from matplotlib.figure import Figure  # noqa: PLC0415

    moments = [moment for moment in report.moments if moment.at >= report.began - 1.0]
    at = [moment.at - report.began for moment in moments]
    figure = Figure(figsize=(10, 8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    balances, usage, charges = figure.subplots(3, 1, sharex=True)
    _balances(balances, at, moments)
    _usage(usage, at, moments)
    _charges(charges, at, moments)
    charges.set_xlabel("seconds since the traffic began")
    charges.set_xlim(0, at[-1])
    for axes in (balances, usage, charges):
        _shade(axes, report.wiped)
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if report.wiped:
        _explain(balances, report.wiped)
        figure.suptitle("Redis wiped and read-only in the middle of the traffic: nobody is charged", fontsize=13)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _balances(axes: Axes, at: Sequence[float], moments: Sequence[Moment]) -> None:
    known, unknown = [moment.known for moment in moments], [moment.unknown for moment in moments]
    axes.stackplot(at, known, unknown, labels=["known", "unknown"], colors=[KNOWN, UNKNOWN], step="post")
    axes.set_ylabel("accounts")
    axes.set_title("balances in Redis", loc="left", fontsize=11)
    axes.legend(loc="lower right", framealpha=0.9)


def _usage(axes: Axes, at: Sequence[float], moments: Sequence[Moment]) -> None:
    for label, totals, colour in (
        ("settled in PostgreSQL", [moment.settled for moment in moments], LEDGER),
        ("applied in Redis", [moment.applied for moment in moments], REDIS),
        ("published", [moment.published for moment in moments], SENT),
    ):
        axes.plot(at, _rates(at, totals), label=label, color=colour, linewidth=1.6)
    axes.set_ylabel("events a second")
    axes.set_ylim(bottom=0)
    axes.set_title("usage", loc="left", fontsize=11)
    axes.legend(loc="upper right", framealpha=0.9)


def _charges(axes: Axes, at: Sequence[float], moments: Sequence[Moment]) -> None:
    axes.step(at, [moment.charged for moment in moments], where="post", color=CHARGED, label="cards charged")
    axes.set_ylabel("so far")
    axes.set_ylim(bottom=0)
    axes.set_title("charges at the payment gateway", loc="left", fontsize=11)
    axes.legend(loc="upper left", framealpha=0.9)


def _rates(at: Sequence[float], totals: Sequence[int]) -> list[float]:
    """Per second, over the last second or what there is of it."""
    rates = []
    for index, now in enumerate(at):
        first = max(0, bisect_right(at, now - RATE_SECONDS) - 1)
        seconds = now - at[first]
        rates.append((totals[index] - totals[first]) / seconds if seconds > 0 else 0.0)
    return rates


def _shade(axes: Axes, wiped: dict[str, float]) -> None:
    if wiped:
        axes.axvspan(wiped["struck"], wiped["recovered"], color=WIPED, alpha=0.10, linewidth=0)


def _explain(axes: Axes, wiped: dict[str, float]) -> None:
    axes.annotate("Redis emptied,\nread-only", (wiped["struck"], 100), color=WIPED, fontsize=9)
