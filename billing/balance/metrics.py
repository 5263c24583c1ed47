"""Metrics of the balance store, each declared once. Labels are closed sets; no account or session is ever a label."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

# answers of the functions by function and kind of answer (Applied, Behind, Fenced, Unavailable, …)
ANSWERS = Counter("billing_balance_answers_total", "Answers of the balance store", ["call", "answer"])

# sessions settled: one per first completion, charged nothing included
SETTLED = Counter("billing_balance_settled_total", "Sessions settled in the balance store")

# completions of sessions that were settled before, recognised within the dedupe window
DUPLICATES = Counter("billing_balance_duplicates_total", "Duplicate completions recognised")

# usage passed because the account's balance is unknown; the derivation counts it
PASSED = Counter("billing_balance_passed_total", "Usage passed while its account's balance is unknown")

# records that were dead letters to this consumer; only the ledger's consumer stores them
DEAD_LETTERS = Counter("billing_balance_dead_letters_total", "Records without effect, by reason", ["reason"])

# times that the oldest strays were forgotten: an account opened below the floor then has to be derived
EVICTIONS = Counter("billing_balance_stray_evictions_total", "Batches that evicted remembered strays")

# holds that ended by their lease, at the log's end
EXPIRED = Counter("billing_balance_holds_expired_total", "Holds expired")

# accounts whose balance was derived from the ledger, by what came of it
DERIVATIONS = Counter("billing_balance_derivations_total", "Attempts to derive an account", ["outcome"])

# open holds by partition, as of the last housekeeping
OPEN_HOLDS = Gauge("billing_balance_open_holds", "Open holds", ["partition"])

# signals that Kafka has acknowledged, by kind (low, exhausted, restored, cutoff, expired, suspended, resumed)
SIGNALS = Counter("billing_balance_signals_total", "Signals published", ["kind"])

# signals waiting to be published by partition, as of the owner's last look
SIGNAL_BACKLOG = Gauge("billing_balance_signal_backlog", "Signals not yet published", ["partition"])
