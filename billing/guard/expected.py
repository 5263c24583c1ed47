"""What this deployment expects of its balance store, from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from billing.settings import SettingError


class Persistence(StrEnum):
    """ON: AOF or snapshots. AOF: the AOF. OFF: none is expected (a primary whose replicas persist)."""

    ON = "on"
    AOF = "aof"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Expected:
    """Values that the running server is held against."""

    persistence: Persistence = Persistence.ON

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> Expected:
        """BILLING_EXPECT_PERSISTENCE: on (the default), aof or off. Raises SettingError for anything else."""
        value = environ.get("BILLING_EXPECT_PERSISTENCE", "").strip().lower() or "on"
        try:
            return Expected(Persistence(value))
        except ValueError:
            raise SettingError(f"BILLING_EXPECT_PERSISTENCE must be on, aof or off, got {value!r}") from None
