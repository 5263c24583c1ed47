"""What both books must say in the end, noted while the traffic is made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from billing.lab.wire import Message
from schemas.reasons import DeadLetterReason


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

    def held(self) -> Counter[str]:
        """What is on hold for each account, as long as no lease has run out."""
        held: Counter[str] = Counter()
        for key, (_, amount) in self.open_holds.items():
            held[key.account] += amount
        return held

    def hold(self, key: SessionKey, elapsed: int, amount_micros: int) -> None:
        """`started`, `progressed` or `accepted` was sent: the largest elapsed counts, nothing once settled."""
        if key not in self.settled and elapsed > self.open_holds.get(key, (-1, 0))[0]:
            self.open_holds[key] = (elapsed, amount_micros)

    def complete(self, key: SessionKey, amount_micros: int) -> None:
        """`completed` was sent: the first one counts."""
        self.completions += 1
        if key not in self.settled:
            self.settled[key] = amount_micros
            self.charged[key.account] = self.charged.get(key.account, 0) + amount_micros
            self.open_holds.pop(key, None)
