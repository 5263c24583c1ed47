"""Every metric of billing.stream, declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# Records whose effects (or verdict of no effect) are in the sink, exactly once per sink position.
RECORDS = Counter("billing_stream_records", "Records applied", ["group", "topic"])

# Answers of the sink by call (claim, apply, tend) and class name; `applied` dwarfs the others in health.
ANSWERS = Counter("billing_stream_answers", "Answers of the sink", ["group", "call", "answer"])

# One `apply`, seen from the consumer.
APPLY_SECONDS = Histogram(
    "billing_stream_apply_seconds",
    "Time of one apply",
    ["group", "topic"],
    buckets=(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 5),
)

# Last stable offset minus the sink's position; 0 is "at the end". Partitions that we lost are removed.
LAG = Gauge("billing_stream_lag_records", "Records not yet applied", ["group", "topic", "partition"])

# Lanes of this process by state (billing.stream.lane.State).
LANES = Gauge("billing_stream_lanes", "Lanes by state", ["group", "state"])

# A halted partition needs an operator: alarm on > 0.
HALTED = Gauge("billing_stream_halted", "1 while the partition is halted", ["group", "partition"])

# Fingerprint checks by verdict (matches, at_end_of_retention, mismatch).
CHECKS = Counter("billing_stream_fingerprint_checks", "Fingerprint checks", ["group", "verdict"])

# Times that another topic, or the lane's own other one, was read to its end because the sink asked.
CATCH_UPS = Counter("billing_stream_catch_ups", "CatchUp answers served", ["group", "topic"])

# Time that lanes stood still because the catalogue's horizon was not far enough.
HORIZON_SECONDS = Counter("billing_stream_horizon_wait_seconds", "Time spent waiting for the horizon", ["group"])

# Memberships left and joined again, by why (fenced, broken, stalled).
REJOINS = Counter("billing_stream_rejoins", "Group rejoined", ["group", "reason"])

# Commits of Kafka's own offsets that failed: harmless, positions live in the sink.
COMMIT_FAILURES = Counter("billing_stream_commit_failures", "Offset commits that failed", ["group"])

# `billing.tick.v1` appended so that log time goes on while holds are open.
TICKS = Counter("billing_stream_ticks", "Ticks appended", ["group"])
