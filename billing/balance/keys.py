"""Names of the balance store's keys. All keys of a partition share the hash tag `{p<p>}`, so that one function call
touches one slot of a Redis Cluster; data keys carry the incarnation, so that a rebuild writes beside the old state."""

from __future__ import annotations

from dataclasses import dataclass

from billing.usage.ops import LETTERS, SessionKind

GENERATION_MS = 6 * 3_600_000
"""Length of a dedupe generation in log time: a settled session is remembered for two to three of them."""

DATA_KEYS = (
    *("pos", "acct", "sess", "lease", "stray", "deriving", "done:0", "done:1", "done:2"),
    *("alert", "sig", "marker"),
)
"""Data keys of one partition, in the order in which the functions take them (after `meta`)."""


@dataclass(frozen=True, slots=True)
class KeySpace:
    """One deployment's keys. `prefix` is the settings' `key_prefix`; `partitions` and `generation_ms` are written to
    the store when it is initialised, and must stay what they were then."""

    prefix: str
    partitions: int
    generation_ms: int = GENERATION_MS

    def meta(self, partition: int) -> str:
        """The hash that names the incarnation, the owner and the state of a partition."""
        return f"{self.prefix}:{{p{partition}}}:meta"

    def data(self, partition: int, incarnation: str) -> list[str]:
        """The data keys of one incarnation, in the functions' order."""
        return [f"{self.prefix}:{{p{partition}}}:{incarnation}:{name}" for name in DATA_KEYS]

    def all(self, partition: int, incarnation: str) -> list[str]:
        """KEYS of a call: meta, then the data keys."""
        return [self.meta(partition), *self.data(partition, incarnation)]


_KINDS: dict[str, SessionKind] = {letter: kind for kind, letter in LETTERS.items()}


def split_session_key(key: str) -> tuple[SessionKind, str, str]:
    """(kind, account, session) of a session key (`billing.usage.ops.session_key`)."""
    letter, account, session = key.split("/")
    return _KINDS[letter], account, session
