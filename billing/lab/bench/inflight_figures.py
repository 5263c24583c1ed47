"""Which figures `billing bench inflight` gives, and how they come of what was measured. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from billing.lab.bench.figures import CORES, Figure
from billing.lab.bench.results import Loaded, Outcome
from billing.lab.bench.series import Pace
from billing.lab.bench.stats import percentile

FIGURES = (
    Figure("events_per_second", "backlog drained by one consumer process", "events/s", asked="≥ 100,000"),
    Figure("cpu_consumer", "CPU per event: consumer", "µs", 2),
    Figure("stage_decode", "  of that: JSON into an event", "µs", 2),
    Figure("stage_verdict", "  of that: event, account, tariff, price (decoding included)", "µs", 2),
    Figure("stage_pack", "  of that: packing the batch", "µs", 2),
    Figure("stage_fingerprint", "  of that: fingerprint of the last record", "µs", 2),
    Figure("cpu_redis", "CPU per event: Redis/Valkey", "µs", 2),
    Figure("cpu_broker", "CPU per event: broker", "µs", 2),
    Figure("cores", "cores in use, all three", "", 2),
    Figure("call_p50", "function call p50 (server's clock)", "ms", 2),
    Figure("call_p999", "function call p99.9 (server's clock)", "ms", 2, "< 5"),
    Figure("call_max", "longest function call (server's clock)", "ms", 2),
    Figure("client_p50", "function call p50 (consumer's clock, its queue included)", "ms", 2),
    Figure("client_p999", "function call p99.9 (consumer's clock, its queue included)", "ms", 2),
    Figure("call_records", "records per function call, housekeeping included", "", 0),
    Figure("call_micros", "time in functions per event", "µs", 2),
    Figure("memory_per_second", "the same function fed from memory, without Kafka", "events/s"),
    Figure("memory_ratio", "  backlog / fed from memory", "", 3, "≥ 0.85"),
    Figure("packed_per_second", "packed batches straight to the function", "events/s"),
    Figure("packed_ratio", "  backlog / packed", "", 2),
    Figure("decode_per_second", "decode-only drain of the same topic, no store", "events/s"),
    Figure("decode_ratio", "  backlog / decode-only", "", 2),
    Figure("decode_cpu", "  its CPU per event", "µs", 2),
    Figure("naive_per_second", "naive consumer, Kafka's auto-commit", "events/s"),
    Figure("naive_ratio", "  backlog / naive", "times", 1, "≥ 15"),
    Figure("naive_commit_per_second", "naive consumer, a commit per event", "events/s"),
    Figure("naive_commit_ratio", "  backlog / naive with commits", "times", 1),
    Figure("hot_per_second", "one account per partition has all the traffic", "events/s"),
    Figure("hot_ratio", "  hot / uniform", "", 2, "≥ 0.9"),
    Figure("open_loop_per_second", "open loop: half of the backlog's rate", "events/s"),
    Figure("latency_p50", "publish → applied p50", "ms", 1),
    Figure("latency_p99", "publish → applied p99", "ms", 1, "≤ 25"),
    Figure("latency_max", "publish → applied, longest", "ms", 1),
    Figure("look_millis", "  its resolution: time between looks", "ms", 1),
    Figure("late_millis", "  the producer's worst lateness (counted in)", "ms", 1),
    Figure("bytes_per_account", "Redis memory per idle account", "bytes", 0, "≤ 160"),
    Figure("record_bytes", "  of that in the hash of accounts (MEMORY USAGE)", "bytes", 0),
    Figure("opened_per_second", "opening entries applied", "accounts/s"),
    Figure("first_seconds", "start of the process to its first record", "s", 1),
    *CORES,
)


ARMS = ("memory", "hot", "decode", "packed", "naive", "stages", "latency")
"""What may be left out; the uniform drain is always there."""


def values_of(
    paces: Mapping[str, Pace], calls: Mapping[str, float], client: Mapping[str, float], loaded: Loaded
) -> dict[str, float]:
    """One run's figures by key, of the arms that there are. `calls` in us by percentile, with "records" of a call and
    "micros" per event; `client` in ms."""
    uniform = paces["uniform"]
    rates = {name: pace.per_second for name, pace in paces.items()}
    values = {
        "events_per_second": rates["uniform"],
        **{f"cpu_{name}": uniform.cpu_micros[name] for name in ("consumer", "redis", "broker")},
        "cores": sum(uniform.cores[name] for name in ("consumer", "redis", "broker")),
        **{"call_p50": calls["p50"] / 1000, "call_p999": calls["p99.9"] / 1000, "call_max": calls["p100"] / 1000},
        **{"client_p50": client["p50"], "client_p999": client["p99.9"]},
        **{"call_records": calls["records"], "call_micros": calls["micros"]},
        **{f"{name}_per_second": rates[name] for name in rates if name != "uniform"},
        **{f"{name}_ratio": rates["uniform"] / rates[name] for name in rates if name not in ("uniform", "hot")},
        **loaded._asdict(),
    }
    if "hot" in paces:
        values["hot_ratio"] = rates["hot"] / rates["uniform"]
    if "decode" in paces:
        values["decode_cpu"] = paces["decode"].cpu_micros["consumer"]
    return values


def latency_values(outcome: Outcome, offered_per_second: float) -> dict[str, float]:
    """The open loop's figures by key."""
    return {
        "open_loop_per_second": offered_per_second,
        **{f"latency_p{n}": 1000 * percentile(outcome.seconds, n / 100) for n in (50, 99)},
        "latency_max": 1000 * outcome.seconds[-1],
        "look_millis": 1000 * outcome.look_seconds,
        "late_millis": 1000 * outcome.late_seconds,
    }
