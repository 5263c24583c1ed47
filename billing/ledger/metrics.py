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
# duplicates that only the primary key noticed: the batch went again, with every session looked up (S20)
late_duplicates = Counter("billing_ledger_late_duplicates_total", "Batches with a duplicate of long ago")
# deadlocks and serialization failures: the whole batch went again (S27)
apply_retries = Counter("billing_ledger_apply_retries_total", "Batches applied again")

# --- relay ----------------------------------------------------------------------------------------------

relayed_entries = Counter("billing_relay_entries_total", "Entries acknowledged by Kafka")
relayed_versions = Counter("billing_relay_versions_total", "Catalogue versions acknowledged by Kafka")
relay_partitions = Gauge("billing_relay_partitions", "Partitions owned by this relay")
relay_heartbeat_ms = Gauge("billing_relay_heartbeat_as_of_ms", "as_of of the last heartbeat acknowledged")
# PostgreSQL or Kafka away; the relay backs off and goes on
relay_failures = Counter("billing_relay_failures_total", "Rounds that failed", ["step"])

# --- measured by the one relay that owns the catalogue, every 30 s; absent in all others -----------------

# rows that the ledger has committed and Kafka has not acknowledged, each kind counted up to 100,000
outbox_waiting = Gauge("billing_outbox_waiting", "Rows that wait to be published", ["kind"])
outbox_oldest_s = Gauge("billing_outbox_oldest_seconds", "Age of the oldest of them", ["kind"])
# that nothing has come of: not taken in since, not given up
dead_letters_open = Gauge("billing_dead_letters_unresolved", "Dead letters to decide about", ["reason"])
dead_letters_oldest_s = Gauge("billing_dead_letters_oldest_seconds", "Age of the oldest of them", ["reason"])
# 1: the ledger forgot entries that it had published (S28); nothing is published, nobody is charged
suspected = Gauge("billing_ledger_suspected", "Whether the ledger is believed to be an earlier state of itself")
