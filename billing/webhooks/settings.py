"""The webhook service's own settings, from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from billing.recharge.stripe_settings import StripeSettings
from billing.settings import SettingError, whole_number

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where to listen (`port` 0 takes a free one), the endpoint's signing secrets (two while one replaces the other),
    the gateway that everything is read back from, the pause between two sweeps in seconds, and how old refunds and
    disputes may be that a sweep looks at, in days."""

    host: str
    port: int
    secrets: tuple[str, ...] = field(repr=False)
    stripe: StripeSettings
    sweep_every_s: int = 3600
    sweep_days: int = 90

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> WebhookSettings:
        """BILLING_STRIPE_WEBHOOK_SECRET, BILLING_WEBHOOK_ADDRESS, _SWEEP_SECONDS and _SWEEP_DAYS, and the gateway's.
        Raises SettingError naming the first that is missing or malformed."""
        address = environ.get("BILLING_WEBHOOK_ADDRESS", "").strip() or "127.0.0.1:8081"
        parts = _ADDRESS.fullmatch(address)
        if parts is None or int(parts[3]) > 65535:
            raise SettingError(f"BILLING_WEBHOOK_ADDRESS must be host:port, got {address!r}")
        secrets = tuple(environ.get("BILLING_STRIPE_WEBHOOK_SECRET", "").replace(" ", "").split(","))
        if secrets == ("",):
            raise SettingError("BILLING_STRIPE_WEBHOOK_SECRET is not set")
        if not all(re.fullmatch(r"whsec_[A-Za-z0-9+/=_-]{16,255}", secret) for secret in secrets):  # not repeated
            raise SettingError("BILLING_STRIPE_WEBHOOK_SECRET must be whsec_…, or two of them with a comma between")
        return WebhookSettings(
            *(parts[1] or parts[2], int(parts[3]), secrets, StripeSettings.from_env(environ)),
            sweep_every_s=whole_number(environ, "BILLING_WEBHOOK_SWEEP_SECONDS", 3600, 1, 86_400),
            sweep_days=whole_number(environ, "BILLING_WEBHOOK_SWEEP_DAYS", 90, 1, 365),
        )
