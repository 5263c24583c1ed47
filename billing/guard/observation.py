"""What one look at the balance store saw, as plain values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from billing.balance.balances import PartitionView, Unknown
from billing.guard.chain import NodeSeen


@dataclass(frozen=True, slots=True)
class FileView:
    """The server's config file. `differs`: directive, running value, the file's value. `unchecked`: why it could not
    be compared, or ""."""

    differs: tuple[tuple[str, str, str], ...] = ()
    unchecked: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """Where `away` says why there was no answer, the rest is empty. What could not be asked is None or absent."""

    away: str = ""
    place: str = ""  # of a cluster the primary's address, "" of one server and of Sentinel
    unsupported: str = ""  # the server is too old: which one
    server: str = ""
    info: Mapping[str, object] = field(default_factory=dict)  # INFO, parsed
    config: Mapping[str, str] | None = None  # CONFIG GET; None: not permitted
    of_itself: bool = False  # it is a replica whose primary's address is its own
    keys: int | None = None  # DBSIZE
    ledger: str = ""  # why the ledger's identity is not known, "" where it is
    timeline: str = ""  # what the ledger expects
    incarnation: int | None = None
    partitions: Mapping[int, PartitionView | Unknown] = field(default_factory=dict)
    file: FileView = field(default_factory=FileView)
    around: tuple[NodeSeen, ...] = ()  # replicas, theirs, and what it follows

    def text(self, name: str) -> str:
        """A field of INFO, "" where it is absent."""
        value = self.info.get(name)
        return "" if value is None else str(value)

    def number(self, name: str, default: int = 0) -> int:
        """A number of INFO."""
        value = self.info.get(name, default)
        return int(value) if isinstance(value, int | float) else default

    def setting(self, name: str) -> str | None:
        """A running value, None where CONFIG GET did not answer it."""
        return None if self.config is None else self.config.get(name)
