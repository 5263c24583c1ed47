"""What the reconciler needs beside `billing.settings`: BILLING_RECONCILE_PER_SECOND."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from billing.settings import SettingError

NAME = "BILLING_RECONCILE_PER_SECOND"
DEFAULT = 2_000
MOST = 1_000_000


def per_second_from_env(environ: Mapping[str, str] = os.environ) -> int:
    """Accounts per second of the background sweep, at most (2000 when it is not set). Raises SettingError."""
    value = environ.get(NAME, "").strip()
    if not value:
        return DEFAULT
    if not re.fullmatch(r"\d{1,7}", value) or not 1 <= int(value) <= MOST:
        raise SettingError(f"{NAME} must be a whole number from 1 to {MOST}, got {value[:64]!r}")
    return int(value)
