"""Holds that were passed while their account's balance was unknown: only the log still has them. The port through which
a derivation brings them back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from billing.balance.records import HoldRecord

MOST_PASSED = 1000
"""Holds of one account that one derivation brings back; more would block the store for too long."""


class Span(NamedTuple):
    """Usage offsets, first <= offset < end, at which an account's usage was passed."""

    first: int
    end: int


class PassedHolds(Protocol):
    """What the owner asks of the log. Must not raise for a log that is away."""

    async def read(self, partition: int, spans: Mapping[str, Span]) -> Mapping[str, Mapping[str, HoldRecord]] | None:
        """Holds by account and session key, placed in its span and not completed there; an account whose usage cannot
        be priced yet is missing. None: the log gave no answer."""
        ...
