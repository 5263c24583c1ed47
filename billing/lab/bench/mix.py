"""The realistic mix as bytes, fast: calls in three events, messages in two, sessions interleaved. Pure and seeded.

A few microseconds per event, because millions are written before anything is measured; the demo's producer
(`billing.lab.traffic`) also makes duplicates, disorder and poison, and is twenty times slower.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from billing.lab.wire import rfc3339
from schemas.catalogue import Rate

CALL_SHARE = 0.6
"""Of sessions; the others are messages. So 100 sessions are 260 events."""

EVENTS_PER_SESSION = 3 * CALL_SHARE + 2 * (1 - CALL_SHARE)
OTHER_STATUSES = ("busy", "no-answer", "failed", "canceled")
COMPLETED_SHARE = 0.85
MEAN_SECONDS = 150
_MOMENTS = 600  # answered_at and accepted_at: one of so many seconds before the mix was made


class Line(NamedTuple):
    """A record: key and value; all have the same headers."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Dialled:
    """What can be dialled: (direction, to without its last digits, how many digits follow)."""

    calls: tuple[tuple[str, str, int], ...]
    texts: tuple[tuple[str, str, int], ...]


def dialled(plans: Sequence[Sequence[Rate]]) -> Dialled:
    """Destinations that every plan has a price for."""
    known = [{(rate.kind, rate.direction, rate.match) for rate in rates} for rates in plans]
    shared = sorted(use for use in set.intersection(*known) if use[2].isdigit())

    def of(kind: str) -> tuple[tuple[str, str, int], ...]:
        return tuple((direction, f"+{match}", 11 - len(match)) for k, direction, match in shared if k == kind)

    return Dialled(of("call"), of("sms"))


class Mix:
    """The producer of one partition. `spread`: a session's next event comes after 1 to 2 x `spread` further events of
    the partition, so that a batch rarely has two of one session."""

    def __init__(
        self, seed: str, accounts: Sequence[str], numbers: Dialled, *, now_ms: int, spread: int = 10_000
    ) -> None:
        self._rng = random.Random(seed)
        self._run = f"{self._rng.getrandbits(40):010x}"
        self._accounts = accounts
        self._numbers = numbers
        self._spread = spread
        self._now = rfc3339(now_ms)
        self._moments = [rfc3339(now_ms - 1000 * seconds) for seconds in range(_MOMENTS)]
        self._agenda: list[tuple[int, int, Line]] = []
        self._sessions = 0
        self.completed = 0

    def take(self, count: int) -> Iterator[Line]:
        """Exactly `count` events. Every session that they begin ends in them: towards the end no new one begins."""
        agenda, sent = self._agenda, 0
        while sent < count:
            if agenda and (agenda[0][0] <= sent or len(agenda) >= count - sent):
                yield heappop(agenda)[2]
            else:
                yield self._begin(sent, count - sent - len(agenda))
            sent += 1

    def _begin(self, at: int, room: int) -> Line:
        """The first event of a new session of at most `room` events; the others go on the agenda."""
        rng = self._rng
        self._sessions += 1
        self.completed += 1
        account = self._accounts[int(rng.random() * len(self._accounts))]
        if room >= 3 and (rng.random() < CALL_SHARE or room == 3):
            lines = self._call(account, f"CA{self._run}{self._sessions:x}")
        elif room >= 2:
            lines = self._text(account, f"SM{self._run}{self._sessions:x}")
        else:
            lines = self._item(account, f"IT{self._run}{self._sessions:x}")
        due = at
        for number, line in enumerate(lines[1:]):
            due += 1 + int(rng.random() * 2 * self._spread)
            heappush(self._agenda, (due, 4 * self._sessions + number, line))
        return lines[0]

    def _call(self, account: str, sid: str) -> tuple[Line, ...]:
        rng = self._rng
        direction, to, digits = self._numbers.calls[int(rng.random() * len(self._numbers.calls))]
        to = f"{to}{int(rng.random() * 10**digits):0{digits}d}"
        leg = f'"call_id":"{sid}","direction":"{direction}","from":"+12125550{sid[-3:]:0>3}","to":"{to}"'
        answered = f'"answered_at":"{self._moments[int(rng.random() * _MOMENTS)]}"'
        seconds = 1 + int(rng.expovariate(1 / MEAN_SECONDS))
        if rng.random() < COMPLETED_SHARE:
            end = f'{answered},"duration_seconds":{seconds},"status":"completed"'
        else:
            end = f'"duration_seconds":0,"status":"{rng.choice(OTHER_STATUSES)}"'
        key = account.encode()
        return (
            Line(key, self._event("usage.call.started.v1", sid, 1, account, leg)),
            Line(
                key,
                self._event(
                    "usage.call.progressed.v1", sid, 2, account, f'{leg},{answered},"elapsed_seconds":{seconds // 2}'
                ),
            ),
            Line(key, self._event("usage.call.completed.v1", sid, 3, account, f"{leg},{end}")),
        )

    def _text(self, account: str, sid: str) -> tuple[Line, ...]:
        rng = self._rng
        direction, to, digits = self._numbers.texts[int(rng.random() * len(self._numbers.texts))]
        to = f"{to}{int(rng.random() * 10**digits):0{digits}d}"
        text = f'"message_id":"{sid}","channel":"sms","direction":"{direction}","from":"Shop","to":"{to}"'
        text += f',"segments":{1 + int(rng.random() * 3)}'
        accepted = self._moments[int(rng.random() * _MOMENTS)]
        key = account.encode()
        return (
            Line(key, self._event("usage.message.accepted.v1", sid, 1, account, text)),
            Line(
                key,
                self._event(
                    "usage.message.completed.v1",
                    sid,
                    2,
                    account,
                    f'{text},"accepted_at":"{accepted}","status":"delivered"',
                ),
            ),
        )

    def _item(self, account: str, sid: str) -> tuple[Line, ...]:
        data = f'"item_id":"{sid}","sku":"recording","quantity":1'
        return (Line(account.encode(), self._event("usage.item.completed.v1", sid, 1, account, data)),)

    def _event(self, type_: str, sid: str, number: int, account: str, data: str) -> bytes:
        return (
            f'{{"specversion":"1.0","type":"{type_}","source":"switch-7","id":"{sid}.{number}","subject":"{account}",'
            f'"time":"{self._now}","datacontenttype":"application/json","data":{{{data}}}}}'
        ).encode()
