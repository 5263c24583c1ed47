"""Metrics of the admission service, each declared once. Labels are closed sets; no account is ever a label."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# answers by kind of usage, whether it was allowed, and the reason
ANSWERS = Counter("billing_admission_answers_total", "Answers", ["kind", "allowed", "reason"])

# requests that had no answer of that kind: malformed, of an account that nobody knows, a bug
PROBLEMS = Counter("billing_admission_problems_total", "Problems answered", ["code"])

# balances that were unknown, by the balance store's reason
UNKNOWN = Counter("billing_admission_unknown_total", "Balances that were unknown", ["reason"])

# from the parsed request to the answer, without HTTP
SECONDS = Histogram(
    "billing_admission_seconds",
    "Time to an answer, in seconds",
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)

# times that the catalogue was thrown away and read anew: lost, or in conflict with itself
CATALOGUE_RESTARTS = Counter("billing_admission_catalogue_restarts_total", "Catalogues read anew after trouble")

# up to when the price is known for certain, in seconds since 1970; the answer is catalogue_stale beyond it
HORIZON = Gauge("billing_admission_catalogue_horizon_seconds", "Horizon of the catalogue")

# how far each partition's balances are behind the log, looked at about once a second: records that are not applied, and
# all that was in the log so many seconds ago is applied (infinite beyond the limit: its balances are unknown, `behind`)
LAG_RECORDS = Gauge("billing_admission_lag_records", "Records that the balances do not have yet", ["partition"])
LAG_SECONDS = Gauge("billing_admission_lag_seconds", "Age of the balances by the log", ["partition"])
