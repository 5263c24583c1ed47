"""Which figures `billing bench admission` gives. Pure."""

from __future__ import annotations

from typing import Any

from billing.lab.bench.figures import Figure

ARMS = ("idle", "beside", "replica")


def _drained(arm: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{arm}_events_per_second", "  the consumer's rate meanwhile", "events/s"),
        Figure(f"{arm}_call_p50", "  its function calls p50 (server's clock)", "ms", 2),
        Figure(f"{arm}_call_p99", "  its function calls p99", "ms", 2),
    )


def _of(arm: str, label: str, asked: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{arm}_p50", f"{label}: p50", "ms", 2),
        Figure(f"{arm}_p99", f"{label}: p99", "ms", 2, asked),
        Figure(f"{arm}_p999", f"{label}: p99.9", "ms", 2),
        Figure(f"{arm}_max", f"{label}: longest", "ms", 2),
        Figure(f"{arm}_per_second", "  requests answered", "/s"),
        Figure(f"{arm}_known", "  of them from a known balance", "%", 1),
        Figure(f"{arm}_cpu_admission", "  CPU per request: service", "µs"),
        Figure(f"{arm}_cpu_load", "  CPU per request: who asks", "µs"),
    )


FIGURES = (
    *_of("idle", "nothing else to do", ""),
    *_of("beside", "beside a backlog that is drained", "< 5"),
    *_drained("beside"),
    *_of("replica", "beside a backlog, from a replica, at once", "< 5"),
    *_drained("replica"),
)


def arm_values(arm: str, found: dict[str, Any], service_seconds: float, load_seconds: float) -> dict[str, float]:
    """One arm's figures by key, of what the load found; CPU of the service and of the load in s."""
    answered = found["answered"]
    by_policy = sum(found["outcomes"].get(reason, 0) for reason in ("balance_unknown", "catalogue_stale"))
    known = sum(found["outcomes"].get(reason, 0) for reason in ("ok", "insufficient", "exhausted", "no_price"))
    assert by_policy <= answered
    return {
        **{f"{arm}_{name}": found[f"{name}_ms"] for name in ("p50", "p99", "p999", "max")},
        f"{arm}_per_second": found["per_second"],
        f"{arm}_known": 100 * known / answered,
        f"{arm}_cpu_admission": 1e6 * service_seconds / answered,
        f"{arm}_cpu_load": 1e6 * load_seconds / answered,
    }
