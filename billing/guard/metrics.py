"""Metrics of the guard, each declared once. Labels are the closed set of findings; details are in the log."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from billing.guard.findings import Finding
from billing.guard.verdict import GuardVerdict

# 1 while money may move as far as the balance store is concerned
HEALTHY = Gauge("billing_guard_healthy", "Whether the newest look found the balance store healthy")

# 1 while the newest look has the finding
FINDING = Gauge("billing_guard_finding", "Findings of the newest look", ["finding"])

# when the newest look began: a gauge that stands still means a guard that does not look
LOOKED_AT = Gauge("billing_guard_looked_at_seconds", "Start of the newest look, seconds since 1970 UTC")

LOOK_SECONDS = Histogram(
    "billing_guard_look_seconds", "Length of a look", buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
)

# servers restarted or exchanged behind the address
RUN_ID_CHANGES = Counter("billing_guard_run_id_changes_total", "Times that another run id answered")


def show(verdict: GuardVerdict) -> None:
    """Set the gauges to this verdict."""
    found = {each.finding for each in verdict.findings}
    HEALTHY.set(verdict.healthy)
    for finding in Finding:
        FINDING.labels(finding.value).set(finding in found)
