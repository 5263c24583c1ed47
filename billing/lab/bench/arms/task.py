"""What an arm is told: which records, and where it counts them."""

from __future__ import annotations

import msgspec


class Task(msgspec.Struct, frozen=True):
    """Records of usage with `begin` <= offset < `end`, by partition. `entries` are the offsets of ledger.entries that
    the store stands at. The arm counts records at `counter` where the store's own positions do not tell. Of the naive
    arms, `commit_each`: Kafka hears of each record; `each_event`: not only completed sessions have transactions."""

    begin: list[int]
    end: list[int]
    entries: list[int]
    counter: str
    commit_each: bool = False
    each_event: bool = False
