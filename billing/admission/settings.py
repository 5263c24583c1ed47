"""The admission service's own settings, from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from billing.balance.address import BadAddress, parse_address
from billing.settings import SettingError
from schemas.admission import UnknownPolicy

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})")
_POLICIES: dict[str, UnknownPolicy] = {"allow": "allow", "deny": "deny"}


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """Where to listen (`port` 0 takes a free one), what to answer where the facts are unknown, the longest that the
    balance store is waited for, and how far behind the log a balance may be to count as known. `redis_url` is a replica
    to read from, so that no request waits for the consumers' calls; None: the balance store itself."""

    host: str = "127.0.0.1"
    port: int = 8080
    unknown: UnknownPolicy = "allow"
    deadline_ms: int = 250
    behind_ms: int = 30_000
    redis_url: str | None = field(default=None, repr=False)

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> AdmissionSettings:
        """BILLING_ADMISSION_ADDRESS, _UNKNOWN, _DEADLINE_MS, _BEHIND_MS and _REDIS_URL. Raises SettingError naming the
        first that is malformed."""
        host, port = _address(environ.get("BILLING_ADMISSION_ADDRESS", "").strip() or "127.0.0.1:8080")
        return AdmissionSettings(
            *(host, port, _unknown(environ)),
            deadline_ms=_millis(environ, "DEADLINE", 250, 10, 10_000),
            behind_ms=_millis(environ, "BEHIND", 30_000, 2_000, 600_000),
            redis_url=_replica(environ),
        )


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


def _replica(environ: Mapping[str, str]) -> str | None:
    url = environ.get("BILLING_ADMISSION_REDIS_URL", "").strip()
    try:
        kind = parse_address(url).kind if url else "server"
    except BadAddress as error:
        raise SettingError(f"BILLING_ADMISSION_REDIS_URL must {error}") from error
    if kind != "server":
        raise SettingError("BILLING_ADMISSION_REDIS_URL must be one server: redis://host:port/0, or rediss://")
    return url or None


def _millis(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    name = f"BILLING_ADMISSION_{name}_MS"
    value = environ.get(name, "").strip() or str(default)
    if not re.fullmatch(r"[0-9]{1,6}", value) or not least <= int(value) <= most:
        raise SettingError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
    return int(value)
