"""Metrics of the webhook service, each declared once. Labels are closed sets; no id is ever a label."""

from __future__ import annotations

from prometheus_client import Counter

# requests by what came of them: refused (forged, stale, malformed, too_large, too_slow, busy), passed (nothing of
# ours), looked_at, or again (something was away: the gateway sends it again)
REQUESTS = Counter("billing_webhook_requests_total", "Requests", ["outcome"])

# entries booked because the gateway says that money went back
TAKEN_BACK = Counter("billing_webhook_taken_back_total", "Entries booked", ["kind"])
