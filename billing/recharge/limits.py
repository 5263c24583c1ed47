"""The limits that a deployment may set: BILLING_BREAKER_PER_MINUTE."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from billing.money import AmountRefused, parse_micros
from billing.recharge.policy import Limits
from billing.settings import SettingError


def limits_from_env(environ: Mapping[str, str] = os.environ) -> Limits:
    """The defaults, with the money per minute that opens a currency's breaker: BILLING_BREAKER_PER_MINUTE, in units of
    each currency (10000.00 when it is not set: dollars, euros, yen alike). Raises SettingError for anything else."""
    text = environ.get("BILLING_BREAKER_PER_MINUTE", "").strip()
    if not text:
        return Limits()
    micros = parse_micros(text)
    if isinstance(micros, AmountRefused) or micros <= 0:
        raise SettingError(f"BILLING_BREAKER_PER_MINUTE must be an amount above 0 such as 10000.00, got {text[:64]!r}")
    return replace(Limits(), breaker_per_minute_micros=micros)
