"""What was measured besides paces: results that the figures are worked out of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Loaded(NamedTuple):
    """`bytes_per_account` of memory in all; `record_bytes` of that in the hash of accounts, by MEMORY USAGE."""

    opened_per_second: float
    bytes_per_account: float
    record_bytes: float


class Written(NamedTuple):
    """What PostgreSQL has written so far: rows of all tables, bytes of WAL, whole pages in it."""

    inserted: int
    updated: int
    wal_bytes: int
    page_images: int

    def since(self, before: Written) -> Written:
        return Written(*(now - then for now, then in zip(self, before, strict=True)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of an open loop. `seconds` from intended sending to applied, sorted; `per_second` applied between the first
    counted record's intended moment and the moment at which everything was; `look_seconds` the mean time between looks;
    `late_seconds` how far a tick was behind its schedule at most."""

    seconds: list[float]
    per_second: float
    look_seconds: float
    late_seconds: float


class Steady(NamedTuple):
    """An open loop: the rate offered, what came of it, CPU per event by process in us."""

    per_second: float
    outcome: Outcome
    cpu_micros: Mapping[str, float]
