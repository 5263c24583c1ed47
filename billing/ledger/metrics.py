"""Metrics of the ledger's processes, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# --- settlement (postflight) ----------------------------------------------------------------------------

settled_sessions = Counter("billing_ledger_settled_sessions_total", "Sessions settled, each once")
settled_micros = Counter("billing_ledger_settled_micros_total", "Micro-units charged", ["currency"])
# completions of a session that had been settled already: equal ones, and ones that say something else
duplicates = Counter("billing_ledger_duplicates_total", "Repeated completions", ["verdict"])
dead_letters = Counter("billing_ledger_dead_letters_total", "Records stored as dead letters", ["reason"])
apply_seconds = Histogram(
    "billing_ledger_apply_seconds",
    "One batch, from lease to commit",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
# deadlocks and serialization failures: the whole batch went again (S27)
apply_retries = Counter("billing_ledger_apply_retries_total", "Batches applied again")

# --- relay ----------------------------------------------------------------------------------------------

relayed_entries = Counter("billing_relay_entries_total", "Entries acknowledged by Kafka")
relayed_versions = Counter("billing_relay_versions_total", "Catalogue versions acknowledged by Kafka")
relay_partitions = Gauge("billing_relay_partitions", "Partitions owned by this relay")
relay_heartbeat_ms = Gauge("billing_relay_heartbeat_as_of_ms", "as_of of the last heartbeat acknowledged")
# PostgreSQL or Kafka away; the relay backs off and goes on
relay_failures = Counter("billing_relay_failures_total", "Rounds that failed", ["step"])
