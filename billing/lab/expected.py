"""What both books must say in the end, noted while the traffic is made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from billing.lab.wire import Message
from schemas.reasons import DeadLetterReason

CALL_LEASE_MS = 180_000
MESSAGE_LEASE_MS = 4 * 3_600_000


class SessionKey(NamedTuple):
    """The identity that is charged once."""

    account: str
    kind: str
    session: str


@dataclass
class Expected:
    """Counts of records, and the outcome per account. Money in micro-units."""

    published: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    completions: int = 0  # sound completions, repeated and differing ones included
    repeats: int = 0  # sound records sent again, with the same or another event id
    charged: dict[str, int] = field(default_factory=dict)  # account -> sum of its settled sessions
    settled: dict[SessionKey, int] = field(default_factory=dict)  # what each session costs
    open_holds: dict[SessionKey, tuple[int, int]] = field(default_factory=dict)  # -> (elapsed seconds, amount)
    renewed_ms: dict[SessionKey, int] = field(default_factory=dict)  # when an open hold was last sent
    differing: set[SessionKey] = field(default_factory=set)  # sessions with a second completion of other content
    poison: list[tuple[Message, DeadLetterReason]] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        """Completions beyond the first of each session."""
        return self.completions - len(self.settled)

    def dead_letters(self) -> Counter[str]:
        """How many of each reason."""
        return Counter(reason.value for _, reason in self.poison)

    def sessions_of(self) -> Counter[str]:
        """How many settled sessions each account has."""
        return Counter(key.account for key in self.settled)

    def lasts(self, key: SessionKey, log_time_ms: int) -> bool:
        """Whether an open hold's lease certainly has not run out at this log time."""
        lease_ms = MESSAGE_LEASE_MS if key.kind == "message" else CALL_LEASE_MS
        return log_time_ms < self.renewed_ms[key] + lease_ms

    def hold(self, key: SessionKey, elapsed: int, amount_micros: int, now_ms: int) -> None:
        """`started`, `progressed` or `accepted` was sent: the largest elapsed counts, nothing once settled."""
        if key in self.settled:
            return
        if elapsed > self.open_holds.get(key, (-1, 0))[0]:
            self.open_holds[key] = (elapsed, amount_micros)
            self.renewed_ms[key] = now_ms
        elif elapsed == self.open_holds[key][0]:
            self.renewed_ms[key] = now_ms

    def complete(self, key: SessionKey, amount_micros: int) -> None:
        """`completed` was sent: the first one counts."""
        self.completions += 1
        if key not in self.settled:
            self.settled[key] = amount_micros
            self.charged[key.account] = self.charged.get(key.account, 0) + amount_micros
            self.open_holds.pop(key, None)
            self.renewed_ms.pop(key, None)
