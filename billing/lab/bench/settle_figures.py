"""Which figures `billing bench settle` gives, and how they come of what was measured. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from billing.lab.bench.figures import CORES, Figure
from billing.lab.bench.results import Steady, Written
from billing.lab.bench.series import Pace
from billing.lab.bench.stats import percentile

FIGURES = (
    Figure("sessions_per_second", "backlog drained by one consumer process", "sessions/s", asked="≥ 40,000"),
    Figure("events_per_second", "  the same in events", "events/s"),
    Figure("rows_per_second", "  the same in rows written", "rows/s"),
    Figure("rows_inserted", "rows inserted per session", "", 2),
    Figure("rows_updated", "rows updated per session", "", 2),
    Figure("cpu_consumer", "CPU per event: consumer", "µs", 2),
    Figure("cpu_postgres", "CPU per event: PostgreSQL, all processes", "µs", 2),
    Figure("cpu_broker", "CPU per event: broker", "µs", 2),
    Figure("cores", "cores in use, all three", "", 2),
    Figure("wal_per_session", "WAL per session", "bytes"),
    Figure("wal_per_event", "WAL per event", "bytes"),
    Figure("images_per_session", "  full-page images per session", "", 3),
    Figure("copy_per_second", "COPY of the same usage rows into the same table", "rows/s"),
    Figure("copy_ratio", "  settled sessions / COPY", "", 3, "≥ 0.25"),
    Figure("copies_per_second", "four COPYs at once", "rows/s"),
    Figure("copies_ratio", "  settled sessions / four COPYs", "", 2),
    Figure("hot_per_second", "one account per partition has all the traffic", "events/s"),
    Figure("hot_ratio", "  hot / uniform", "", 2, "≥ 0.9"),
    Figure("steady_offered", "steady rate, open loop: offered", "events/s"),
    Figure("steady_settled", "  settled", "events/s"),
    Figure("steady_ratio", "  settled / backlog drain", "", 2),
    Figure("steady_p50", "  publish → settled p50", "ms", 1),
    Figure("steady_p99", "  publish → settled p99", "ms", 1),
    Figure("steady_max", "  publish → settled, longest", "ms", 1),
    Figure("steady_cpu", "  CPU per event: consumer and PostgreSQL", "µs", 2),
    Figure("both_per_second", "both consumers together, servers included", "events/s", asked="≥ 40,000"),
    *(
        Figure(f"both_cpu_{name}", f"  CPU per event: {label}", "µs", 2)
        for name, label in (
            *(("inflight", "in-flight consumer"), ("postflight", "post-flight consumer"), ("broker", "broker")),
            *(("redis", "Redis/Valkey"), ("postgres", "PostgreSQL")),
        )
    ),
    Figure("both_cores", "  cores in use", "", 2),
    Figure("naive_per_second", "naive consumer, a transaction per event: holds are rows, too", "events/s"),
    Figure("naive_ratio", "  backlog / naive", "times", 1, "≥ 30"),
    Figure("naive_sessions_per_second", "naive consumer, transactions of completed sessions only", "events/s"),
    Figure("naive_sessions_ratio", "  backlog / naive without holds", "times", 1),
    Figure("usage_bytes", "usage table and its indexes, per row", "bytes"),
    Figure("usage_rows", "rows in it at the end of the run", "rows"),
    Figure("opened_per_second", "accounts opened in the ledger", "accounts/s"),
    *CORES,
)


ARMS = ("copy", "hot", "both", "naive", "steady")
"""What may be left out; the uniform drain is always there."""


def values_of(
    paces: Mapping[str, Pace], written: Sequence[tuple[Written, int, int]], copies: Mapping[int, float]
) -> dict[str, float]:
    """One run's figures by key, of the arms that there are. `written` by each uniform drain, with its events and
    sessions; `copies` in rows a second by number of streams."""
    uniform = paces["uniform"]
    total = Written(*map(sum, zip(*(each for each, _, _ in written), strict=True)))
    events, sessions = sum(count for _, count, _ in written), sum(count for _, _, count in written)
    rate = uniform.per_second * sessions / events
    inserted, updated = total.inserted / sessions, total.updated / sessions
    servers = ("consumer", "postgres", "broker")
    values = {
        "sessions_per_second": rate,
        "events_per_second": uniform.per_second,
        "rows_per_second": rate * (inserted + updated),
        **{"rows_inserted": inserted, "rows_updated": updated},
        **{f"cpu_{name}": uniform.cpu_micros[name] for name in servers},
        "cores": sum(uniform.cores[name] for name in servers),
        **{"wal_per_session": total.wal_bytes / sessions, "wal_per_event": total.wal_bytes / events},
        "images_per_session": total.page_images / sessions,
    }
    for name, streams in (("copy", 1), ("copies", max(copies, default=1))):
        if streams in copies:
            values |= {f"{name}_per_second": copies[streams], f"{name}_ratio": rate / copies[streams]}
    for name in ("hot", "both", "naive", "naive_sessions"):
        if name in paces:
            values[f"{name}_per_second"] = paces[name].per_second
    if "hot" in paces:
        values["hot_ratio"] = paces["hot"].per_second / uniform.per_second
    for name in ("naive", "naive_sessions"):
        if name in paces:
            values[f"{name}_ratio"] = uniform.per_second / paces[name].per_second
    if "both" in paces:
        values |= {f"both_cpu_{name}": micros for name, micros in paces["both"].cpu_micros.items()}
        values["both_cores"] = sum(paces["both"].cores.values())
    return values


def steady_values(steady: Steady, uniform_per_second: float) -> dict[str, float]:
    """The open loop's figures by key."""
    outcome = steady.outcome
    return {
        "steady_offered": steady.per_second,
        "steady_settled": outcome.per_second,
        "steady_ratio": outcome.per_second / uniform_per_second,
        **{f"steady_p{n}": 1000 * percentile(outcome.seconds, n / 100) for n in (50, 99)},
        "steady_max": 1000 * outcome.seconds[-1],
        "steady_cpu": steady.cpu_micros["consumer"] + steady.cpu_micros["postgres"],
    }
