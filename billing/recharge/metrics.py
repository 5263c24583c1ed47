"""Metrics of recharge, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

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

# --- the worker -------------------------------------------------------------------------------------------

# calls of the payment gateway: create, confirm, read, cancel, list, create_customer, attach, refund
gateway_calls = Counter("billing_recharge_gateway_calls_total", "Gateway calls by outcome", ["call", "outcome"])
gateway_seconds = Histogram(
    "billing_recharge_gateway_seconds", "Length of a gateway call", ["call"], buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 20)
)
# intents in each state, as last counted
intents = Gauge("billing_recharge_intents", "Intents by state, as last counted", ["state"])
# from the newest signal to the credit read back, by the ledger's clock
confirmed_seconds = Histogram(
    "billing_recharge_confirmed_seconds",
    "From a low balance's signal to the recharge read back",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
proofs = Counter("billing_recharge_proofs_total", "Write proofs by what came of them", ["outcome"])
# payments that the gateway's list has and no intent had credited: credited now, or why not
found_payments = Counter("billing_recharge_found_payments_total", "Uncredited payments found in the list", ["outcome"])
# steps that broke off: a server was away, or a bug (then the log has a traceback)
broken = Counter("billing_recharge_broken_total", "Steps that broke off", ["what"])
