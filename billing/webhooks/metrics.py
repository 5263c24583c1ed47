"""Metrics of the webhook service, each declared once. Labels are closed sets; no id is ever a label."""

from __future__ import annotations

from prometheus_client import Counter

# requests by what came of them: refused (forged, stale, malformed, too_large, too_slow, busy), passed (nothing of
# ours), looked_at, left_to_sweep (of a payment that nobody here knows, and too many of those), or again (something was
# away: the gateway sends it again)
REQUESTS = Counter("billing_webhook_requests_total", "Requests", ["outcome"])

# entries booked because the gateway says that money went back (refund, dispute) or came again (refund_failed,
# dispute_won)
BOOKED = Counter("billing_webhook_booked_total", "Entries booked", ["kind"])

# sweeps of the gateway's refunds and disputes by how they ended: complete; partial (more are listed than a sweep looks
# at, or one could not be read or is of a payment not credited yet); gateway_away or ledger_away (the next one comes);
# failed (a bug: the log has a traceback)
SWEEPS = Counter("billing_webhook_sweeps_total", "Sweeps of refunds and disputes", ["outcome"])
