"""Which sessions were settled lately: a hint that spares most look-ups of duplicates.

It decides nothing. A session that it does not know is inserted as if it were fresh, and the primary key of `usage` says
so if it was not; then the batch goes again, with every session looked up (R7).
"""

from __future__ import annotations

from collections.abc import Iterable

from billing.ledger.completions import SessionKey

GENERATION_SESSIONS = 250_000
"""Two generations are kept: hashes of 0.25 to 0.5 million sessions, about 30 MB."""

CAREFUL_BATCHES = 64


class RecentSessions:
    """Hashes of settled sessions' ids, and for how many batches a partition is looked up in full, after a duplicate
    that was older than the hashes."""

    def __init__(self, generation_sessions: int = GENERATION_SESSIONS, careful_batches: int = CAREFUL_BATCHES) -> None:
        self._limit = generation_sessions
        self._careful_batches = careful_batches
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._careful: dict[int, int] = {}

    def be_careful(self, partition: int) -> None:
        """Look every session of the next batches up."""
        self._careful[partition] = self._careful_batches

    def suspects(self, partition: int, sessions: Iterable[SessionKey]) -> list[SessionKey]:
        """Those of `sessions` that may have been settled before."""
        if self._careful.get(partition, 0):
            return list(sessions)
        young, old = self._young, self._old
        return [key for key in sessions if (hashed := hash(key[2])) in young or hashed in old]

    def settled(self, partition: int, sessions: Iterable[SessionKey]) -> None:
        """A batch has been committed."""
        self._careful[partition] = max(0, self._careful.get(partition, 0) - 1)
        self._young.update([hash(session) for _, _, session in sessions])
        if len(self._young) >= self._limit:
            self._old, self._young = self._young, set()
