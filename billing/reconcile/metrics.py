"""Metrics of the reconciler, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

# of the last whole sweep: equal, behind, missing, different, unknown
accounts = Gauge("billing_reconcile_accounts", "Accounts by how their two books compare", ["comparison"])
looks = Counter("billing_reconcile_looks_total", "Accounts looked at, by the reason of the look", ["why"])
watched = Gauge("billing_reconcile_watched", "Accounts that did not agree and are looked at again")
sweep_seconds = Gauge("billing_reconcile_sweep_seconds", "How long the last whole sweep took")
sweep_at = Gauge("billing_reconcile_sweep_timestamp_seconds", "When the last whole sweep ended")
# anything above 0 wants a person: `billing findings list`
open_findings = Gauge("billing_reconcile_open_findings", "Open findings", ["kind"])
findings = Counter("billing_reconcile_findings_total", "Findings recorded", ["kind"])
repairs = Counter("billing_reconcile_repairs_total", "Views derived anew")
released = Counter("billing_reconcile_released_total", "Findings that ended because the books agree again")
# 1: the store as a whole shows no balances of this partition
store_unknown = Gauge("billing_reconcile_store_unknown", "Partitions whose balances are unknown", ["partition"])
failures = Counter("billing_reconcile_failures_total", "Rounds that failed: a server is away")
