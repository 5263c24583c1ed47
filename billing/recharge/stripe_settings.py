"""Where Stripe (or the sandbox) is: BILLING_STRIPE_API_BASE and BILLING_STRIPE_API_KEY, both without a default, so
that a forgotten variable can never mean the real gateway."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from billing.settings import SettingError

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """`api_base` without a trailing slash; `api_key` a secret or restricted key, never shown."""

    api_base: str
    api_key: str = field(repr=False)

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> StripeSettings:
        """Read and check both; raises SettingError naming the first that is missing or malformed."""
        base = environ.get("BILLING_STRIPE_API_BASE", "").strip().rstrip("/")
        key = environ.get("BILLING_STRIPE_API_KEY", "").strip()
        if not base:
            raise SettingError("BILLING_STRIPE_API_BASE is not set")
        if not key:
            raise SettingError("BILLING_STRIPE_API_KEY is not set")
        _check_base(base)
        if not re.fullmatch(r"(sk|rk)_(test|live)_[A-Za-z0-9]{8,247}", key):  # the key itself is not repeated
            raise SettingError(
                "BILLING_STRIPE_API_KEY must be a secret key: sk_test_…, sk_live_…, rk_test_… or rk_live_…"
            )
        if "_live_" in key and not base.startswith("https://"):
            raise SettingError("BILLING_STRIPE_API_KEY is a live key: BILLING_STRIPE_API_BASE must begin with https://")
        return StripeSettings(base, key)


def _check_base(base: str) -> None:
    try:
        parts = urlsplit(base)
        port_ok = (parts.port or 1) > 0
    except ValueError:
        parts, port_ok = urlsplit(""), False
    if not port_ok or not parts.hostname or parts.path or parts.query or parts.username:
        raise SettingError("BILLING_STRIPE_API_BASE must be like https://api.stripe.com or http://127.0.0.1:12111")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise SettingError("BILLING_STRIPE_API_BASE must begin with https:// (http:// only on this machine)")
