"""What an arm is told: which records, and where it counts them."""

from __future__ import annotations

import msgspec


class Task(msgspec.Struct, frozen=True):
    """Records of usage with `begin` <= offset < `end`, by partition. `entries` are the offsets of ledger.entries that
    the store stands at. The arm counts records at `counter` where the store's own positions do not tell."""

    begin: list[int]
    end: list[int]
    entries: list[int]
    counter: str
    commit_each: bool = False
