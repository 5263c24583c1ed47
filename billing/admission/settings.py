"""The admission service's own settings, from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from billing.settings import SettingError
from schemas.admission import UnknownPolicy

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})")
_POLICIES: dict[str, UnknownPolicy] = {"allow": "allow", "deny": "deny"}


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """Where to listen (`port` 0 takes a free one), what to answer where the facts are unknown, and the longest that
    the balance store is waited for."""

    host: str = "127.0.0.1"
    port: int = 8080
    unknown: UnknownPolicy = "allow"
    deadline_ms: int = 250

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> AdmissionSettings:
        """BILLING_ADMISSION_ADDRESS, _UNKNOWN and _DEADLINE_MS. Raises SettingError naming the first that is
        malformed."""
        host, port = _address(environ.get("BILLING_ADMISSION_ADDRESS", "").strip() or "127.0.0.1:8080")
        return AdmissionSettings(host, port, _unknown(environ), _deadline_ms(environ))


def _address(value: str) -> tuple[str, int]:
    parts = _ADDRESS.fullmatch(value)
    if parts is None or int(parts[3]) > 65535:
        raise SettingError(f"BILLING_ADMISSION_ADDRESS must be host:port, got {value!r}")
    return parts[1] or parts[2], int(parts[3])


def _unknown(environ: Mapping[str, str]) -> UnknownPolicy:
    value = environ.get("BILLING_ADMISSION_UNKNOWN", "").strip().lower() or "allow"
    if value not in _POLICIES:
        raise SettingError(f"BILLING_ADMISSION_UNKNOWN must be allow or deny, got {value!r}")
    return _POLICIES[value]


def _deadline_ms(environ: Mapping[str, str]) -> int:
    value = environ.get("BILLING_ADMISSION_DEADLINE_MS", "").strip() or "250"
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 10 <= int(value) <= 10_000:
        raise SettingError(f"BILLING_ADMISSION_DEADLINE_MS must be a whole number from 10 to 10000, got {value!r}")
    return int(value)
