"""A run as a picture: balances known and unknown, usage in each book, charges, over time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from billing.lab.observe import Moment
from billing.lab.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KNOWN, UNKNOWN, WIPED, REPAIRED = "#4c956c", "#bdbdbd", "#d62828", "#f4a259"
REDIS, LEDGER, SENT, CHARGED = "#d1495b", "#30638e", "#a0a0a0", "#1d3557"
RATE_SECONDS = 1.5  # rates are means over so long
TALLEST = 2.2  # times the highest rate of publishing: the catching up after a wipe is cut off there


class NoMatplotlib(RuntimeError):
    """The picture cannot be drawn; the message says what to do."""


class _Run(NamedTuple):
    """The moments from the first event on, in seconds since then."""

    at: list[float]
    moments: list[Moment]


def check_matplotlib() -> None:
    """Raises NoMatplotlib where the library is missing: it is among the developers' packages, not the runtime's."""
    try:
        import matplotlib  # noqa: F401, PLC0415 - see above
    except ImportError:
        raise NoMatplotlib("--picture needs matplotlib, which `make install` installs") from None


def draw(report: Report, path: Path) -> None:
    """Write the picture of a run as PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - not a package of the runtime

    moments = [moment for moment in report.moments if moment.at >= report.began]
    run = _Run([moment.at - report.began for moment in moments], moments)
    figure = Figure(figsize=(10, 8.4), dpi=100, layout="constrained")
    balances, usage, charges = figure.subplots(3, 1, sharex=True, height_ratios=(3, 4, 4))
    _balances(balances, run)
    _usage(usage, run)
    _charges(charges, run, report)
    charges.set_xlabel("seconds since the traffic began")
    charges.set_xlim(0, max([1.0, *run.at]))
    for axes in (balances, usage, charges):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        if report.wiped:
            _shade(axes, report.wiped)
    if report.wiped:
        _name_phases(balances, report.wiped)
        _name_catching_up(usage, report.wiped)
        figure.suptitle("July 2013 again: Redis comes up empty and read-only, and nobody is charged", fontsize=14)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _balances(axes: Axes, run: _Run) -> None:
    everyone = max([1, *(moment.known + moment.unknown for moment in run.moments)])
    known, unknown = [moment.known for moment in run.moments], [moment.unknown for moment in run.moments]
    colours = [KNOWN, UNKNOWN]
    axes.stackplot(run.at, known, unknown, labels=["known", "unknown"], colors=colours, step="post", linewidth=0)
    axes.set_ylabel("accounts")
    axes.set_ylim(0, 1.45 * everyone)
    axes.set_yticks([0, everyone // 2, everyone])
    axes.set_title("Live balances in Redis", loc="left", fontsize=11, fontweight="bold")
    axes.legend(loc="upper right", ncols=2, frameon=False)


def _usage(axes: Axes, run: _Run) -> None:
    sent = _rates(run.at, [moment.published for moment in run.moments])
    axes.fill_between(run.at, sent, color=SENT, alpha=0.35, linewidth=0, label="published to Kafka")
    for label, totals, colour in (
        ("settled in PostgreSQL", [moment.settled for moment in run.moments], LEDGER),
        ("applied in Redis", [moment.applied for moment in run.moments], REDIS),
    ):
        axes.plot(run.at, _rates(run.at, totals), label=label, color=colour, linewidth=2)
    axes.set_ylabel("events a second")
    axes.set_ylim(0, TALLEST * max(sent, default=0.0) + 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("Usage: the ledger does not need Redis", loc="left", fontsize=11, fontweight="bold")
    axes.legend(loc="upper left", frameon=False, ncols=1)


def _charges(axes: Axes, run: _Run, report: Report) -> None:
    charged = [moment.charged for moment in run.moments]
    axes.step(run.at, charged, where="post", color=CHARGED, linewidth=2)
    axes.set_ylabel("cards charged so far")
    axes.set_ylim(0, 1.15 * max(charged, default=0) + 1)
    axes.set_title("Charges at the payment gateway", loc="left", fontsize=11, fontweight="bold")
    if report.wiped:
        middle = (report.wiped["struck"] + report.wiped["recovered"]) / 2
        asked = "every account with a card\nis signalled as low, every second:"
        text = f"{asked}\n{report.wiped['refused']:,.0f} times refused"
        axes.text(middle, 0.97 * axes.get_ylim()[1], text, ha="center", va="top", fontsize=9, color=WIPED)


def _shade(axes: Axes, wiped: dict[str, float]) -> None:
    axes.axvspan(wiped["struck"], wiped["recovering"], color=WIPED, alpha=0.10, linewidth=0, zorder=0)
    axes.axvspan(wiped["recovering"], wiped["recovered"], color=REPAIRED, alpha=0.22, linewidth=0, zorder=0)


def _name_catching_up(axes: Axes, wiped: dict[str, float]) -> None:
    text = "Redis takes over the ledger's\nposition, then follows the log"
    place = (wiped["recovered"] - 0.6, 0.85 * axes.get_ylim()[1])
    axes.text(*place, text, ha="right", va="center", fontsize=9, color=REDIS)


def _name_phases(axes: Axes, wiped: dict[str, float]) -> None:
    top = 0.97 * axes.get_ylim()[1]
    middle = (wiped["struck"] + wiped["recovering"]) / 2
    axes.text(middle, top, "Redis empty and\na replica of itself", ha="center", va="top", fontsize=9, color=WIPED)
    axes.text(
        wiped["recovering"] + 0.1, top, "migrate,\nrebuild", ha="left", va="top", fontsize=9, color="#9c5a10"
    )


def _rates(at: Sequence[float], totals: Sequence[int]) -> list[float]:
    """Per second, over the last RATE_SECONDS or what there is of them."""
    rates = []
    for index, now in enumerate(at):
        first = max(0, bisect_right(at, now - RATE_SECONDS) - 1)
        seconds = now - at[first]
        rates.append((totals[index] - totals[first]) / seconds if seconds > 0 else 0.0)
    return rates
