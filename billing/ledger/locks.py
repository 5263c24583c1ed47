"""Advisory locks of the ledger: (LOCK_SPACE, lock), local to its database."""

from __future__ import annotations

from enum import IntEnum

LOCK_SPACE = int.from_bytes(b"bill")  # so that other users of the database keep theirs; also in 0002_catalogue.sql


class Lock(IntEnum):
    """Relay locks of partition p are RELAY_PARTITION + p."""

    MIGRATE = 1
    CATALOGUE_VERSION = 2  # shared by version transactions at commit, exclusive while the relay takes as_of
    RELAY_MEMBER = 3  # shared by every relay, so that they can count each other
    RELAY_CATALOGUE = 4
    REBUILD = 5  # of the balance store, one at a time
    FINDING = 6  # held while one is recorded
    RECONCILER = 7  # the one that acts; others stand by
    DEAD_LETTERS = 8  # decisions about them, one at a time
    ARCHIVE = 9  # of settled usage, one at a time
    PARTITIONS = 10  # a migration to more of them, one at a time
    RELAY_PARTITION = 1000
