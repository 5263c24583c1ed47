"""What the recharge worker needs beside `billing.settings`: the gateway, the limits, its timing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from billing.recharge.limits import limits_from_env
from billing.recharge.policy import Limits
from billing.recharge.stripe_settings import StripeSettings
from billing.settings import whole_number

LEASE_MARGIN_MS = 3_000


@dataclass(frozen=True, slots=True)
class Timing:
    """How long and how often, in ms and seconds; decisions are made by the ledger's clock, waits by the monotonic one.

    `gateway_deadline_ms` bounds one call of the gateway; a lease outlives it, so that a dead worker's intents are taken
    over after `lease_ms`."""

    gateway_deadline_ms: int = 20_000
    sweep_pause_s: float = 30.0  # between two rounds over the accounts
    payments_pause_s: float = 30.0  # between two looks at the newest payments
    all_payments_pause_s: float = 3600.0  # between two looks at those of two days

    @property
    def lease_ms(self) -> int:
        return self.gateway_deadline_ms + LEASE_MARGIN_MS


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """See `from_env`."""

    stripe: StripeSettings
    limits: Limits
    timing: Timing

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> WorkerSettings:
        """BILLING_STRIPE_API_BASE and BILLING_STRIPE_API_KEY (required), BILLING_GATEWAY_DEADLINE_MS (20000: how long
        a call of the gateway may take), BILLING_BREAKER_PER_MINUTE. Raises SettingError naming the first that is
        missing or malformed."""
        stripe, limits = StripeSettings.from_env(environ), limits_from_env(environ)
        deadline_ms = whole_number(environ, "BILLING_GATEWAY_DEADLINE_MS", 20_000, 500, 60_000)
        return WorkerSettings(stripe, limits, Timing(gateway_deadline_ms=deadline_ms))
