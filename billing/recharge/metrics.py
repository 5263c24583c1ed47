"""Metrics of recharge, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

# --- asking -----------------------------------------------------------------------------------------------

# signals of accounts that were marked due, by type
signals = Counter("billing_recharge_signals_total", "Signals that asked for an evaluation", ["type"])
# records of billing.signals that are none of ours, stored as dead letters
malformed_signals = Counter("billing_recharge_malformed_signals_total", "Signals stored as dead letters", ["reason"])
# due although no signal had asked: the sweep found them in the ledger
swept = Counter("billing_recharge_swept_total", "Accounts marked due by the sweep", ["kind"])

# --- deciding ---------------------------------------------------------------------------------------------

# every check that said no, by stage (open, proof, final, suspend, resume)
refusals = Counter("billing_recharge_refusals_total", "Refusals by name", ["stage", "refusal"])
opened = Counter("billing_recharge_opened_total", "Intents opened")
opened_micros = Counter("billing_recharge_opened_micros_total", "Micro-units of opened intents", ["currency"])
breaker_trips = Counter("billing_recharge_breaker_trips_total", "Times that a breaker opened", ["currency"])
breaker_open = Gauge("billing_recharge_breaker_open", "1 while the breaker is open, as last seen", ["currency"])
paused = Gauge("billing_recharge_paused", "1 while recharge is paused, as last seen")

# --- charging ---------------------------------------------------------------------------------------------

states = Counter("billing_recharge_states_total", "Intents that came into a state", ["state"])
# a save that met another lease or state: someone else drives the intent
leases_lost = Counter("billing_recharge_leases_lost_total", "Saves refused because the lease was lost")
credited_micros = Counter("billing_recharge_credited_micros_total", "Micro-units credited", ["currency"])
# payments that succeeded after their intent had been closed
late_successes = Counter("billing_recharge_late_successes_total", "Successes of closed intents")
suspended = Counter("billing_recharge_suspended_total", "Accounts suspended as exhausted")
resumed = Counter("billing_recharge_resumed_total", "Suspensions lifted")
