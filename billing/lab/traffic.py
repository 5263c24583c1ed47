"""A seeded producer's day: usage of many accounts, as it comes in from real switches.

A few accounts are busy and most are quiet. Sessions run through their steps; some steps come twice (under the same
event id or another), some in the wrong order, some completions never come, and some records are poison. Time is
given from outside (`now_ms`), so the same seed and times make the same records.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from billing.lab.expected import Expected
from billing.lab.oracle import Oracle
from billing.lab.poison import RECIPES, Kitchen
from billing.lab.population import DemoAccount
from billing.lab.sessions import (
    CALL_STATUSES,
    CALL_WEIGHTS,
    MESSAGE_STATUSES,
    MESSAGE_WEIGHTS,
    Call,
    Item,
    Numbers,
    Session,
    Text,
)
from billing.lab.wire import Message, envelope, message
from schemas.reasons import DeadLetterReason


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of what goes wrong (of 1.0)."""

    poison: float = 0.01
    repeat_same_id: float = 0.02
    repeat_other_id: float = 0.01
    differing: float = 0.001  # a second completion with other content
    reordered: float = 0.03
    never_completed: float = 0.005
    binary_mode: float = 0.4


class Step(NamedTuple):
    """Something to send at `due_ms`. `again` is a record to repeat as it is; otherwise the session's step is told,
    under a new event id; `time_ms` is the event's time, None for the moment of sending."""

    due_ms: float
    number: int
    session: Session
    name: str
    elapsed: int = 0
    time_ms: int | None = None
    again: Message | None = None
    longer: int = 0


class Traffic:
    """`take` hands out records; `expected` says what must come of them."""

    def __init__(
        self, seed: int, accounts: Sequence[DemoAccount], oracle: Oracle, partitions: int, mix: Mix | None = None
    ) -> None:
        self.expected = Expected()
        self._rng = random.Random(seed)
        self._run = f"{self._rng.getrandbits(32):08x}"
        self._accounts = [account for account in accounts if not account.quiet]
        self._weights = list(accumulate(1 / rank for rank in range(1, len(self._accounts) + 1)))
        self._dear = next((a.id for a in accounts if a.currency != "USD"), "")
        self._oracle = oracle
        self._numbers = Numbers(self._rng, oracle, sorted({a.plan for a in accounts}))
        self._partitions = partitions
        self._mix = mix or Mix()
        self._recipes = [(reason, make) for reason, make in RECIPES if self._possible(reason)]
        self._agenda: list[Step] = []
        self._count = 0

    def take(self, now_ms: int, count: int) -> list[Message]:
        """The next `count` records: what is due first, then new sessions and poison."""
        records = []
        for _ in range(count):
            if self._agenda and self._agenda[0].due_ms <= now_ms:
                records.append(self._send(heapq.heappop(self._agenda), now_ms))
            elif self._rng.random() < self._mix.poison:
                records.append(self._poison(now_ms))
            else:
                records.append(self._send(self._begin(now_ms), now_ms))
        self.expected.published += count
        return records

    def _possible(self, reason: DeadLetterReason) -> bool:
        if reason is DeadLetterReason.WRONG_PARTITION:
            return self._partitions > 1
        return reason is not DeadLetterReason.AMOUNT_OUT_OF_RANGE or bool(self._dear)

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _begin(self, now_ms: int) -> Step:
        """A new session: its first step, the others being put on the agenda."""
        account = self._rng.choices(self._accounts, cum_weights=self._weights)[0]
        share = self._rng.random()
        if share < 0.7:
            session, steps = self._call(account, now_ms)
        elif share < 0.96:
            session, steps = self._text(account, now_ms)
        else:
            session, steps = self._item(account)
        if len(steps) > 1 and self._rng.random() < self._mix.reordered:
            steps[-1], steps[-2] = steps[-2], steps[-1]
        elif len(steps) > 1 and self._rng.random() < self._mix.never_completed:
            steps.pop()
        due = float(now_ms)
        agenda = []
        for name, elapsed in steps:
            agenda.append(Step(due, self._number(), session, name, elapsed))
            due += 50 + self._rng.expovariate(1 / 1500)
        for step in agenda[1:]:
            heapq.heappush(self._agenda, step)
        return agenda[0]

    def _call(self, account: DemoAccount, now_ms: int) -> tuple[Session, list[tuple[str, int]]]:
        rng = self._rng
        direction = "outbound" if rng.random() < 0.75 else "inbound"
        status = rng.choices(CALL_STATUSES, CALL_WEIGHTS)[0]
        seconds = 1 + int(rng.expovariate(1 / 150)) if status == "completed" else 0
        call = Call(
            account=account,
            id=f"call-{self._run}-{self._number()}",
            direction=direction,
            origin=f"+1212555{rng.randrange(10_000):04d}",
            to=self._numbers.pick(rng, account.plan, "call", direction),
            answered_ms=now_ms - 1000 * seconds,
            seconds=seconds,
            status=status,
            reserve_seconds=rng.choice((None, None, None, 30, 120, 300)),
        )
        reports = rng.randrange(4) if seconds >= 4 else 0
        steps = [("started", 0)]
        steps += [("progressed", seconds * n // (reports + 1)) for n in range(1, reports + 1)]
        return call, [*steps, ("completed", 0)]

    def _text(self, account: DemoAccount, now_ms: int) -> tuple[Session, list[tuple[str, int]]]:
        rng = self._rng
        direction = "outbound" if rng.random() < 0.8 else "inbound"
        channel = "sms" if rng.random() < 0.9 else "mms"
        text = Text(
            account=account,
            id=f"msg-{self._run}-{self._number()}",
            channel=channel,
            direction=direction,
            origin=rng.choice(("Shop", "+12125550199", "anonymous", "Bank")),
            to=self._numbers.pick(rng, account.plan, channel, direction),
            segments=rng.choice((1, 1, 1, 2, 3)),
            accepted_ms=now_ms,
            status=rng.choices(MESSAGE_STATUSES, MESSAGE_WEIGHTS)[0],
        )
        return text, [("accepted", 0), ("completed", 0)]

    def _item(self, account: DemoAccount) -> tuple[Session, list[tuple[str, int]]]:
        cheap = self._rng.random() < 0.98
        sku = self._rng.choice(("recording", "lookup")) if cheap else "number.local"
        quantity = self._rng.choice((1, 1, 2, 5)) if cheap else 1
        return Item(account, f"item-{self._run}-{self._number()}", sku, quantity), [("completed", 0)]

    def _send(self, step: Step, now_ms: int) -> Message:
        """The record of a step; now and then it will be sent again."""
        session, expected = step.session, self.expected
        told = session.tell(step.name, step.elapsed, self._oracle, expected, now_ms, longer=step.longer)
        expected.by_type[told.type] += 1
        if step.longer:
            expected.differing.add(session.key)
        elif step.time_ms is not None:
            expected.repeats += 1
        if step.again is not None:
            return step.again
        time_ms = now_ms if step.time_ms is None else step.time_ms
        attributes = envelope(told.type, f"{self._run}-{step.number}", session.account.id, time_ms)
        binary = self._rng.random() < self._mix.binary_mode
        record = message(attributes, told.data, "binary" if binary else "structured")
        if step.time_ms is None:
            self._maybe_repeat(step._replace(time_ms=time_ms), record, now_ms)
        return record

    def _maybe_repeat(self, step: Step, record: Message, now_ms: int) -> None:
        mix, chance = self._mix, self._rng.random()
        due = now_ms + self._rng.expovariate(1 / 1000)
        if chance < mix.repeat_same_id:
            heapq.heappush(self._agenda, step._replace(due_ms=due, number=self._number(), again=record))
        elif chance < mix.repeat_same_id + mix.repeat_other_id:
            heapq.heappush(self._agenda, step._replace(due_ms=due, number=self._number()))
        elif self._differs(step) and chance > 1 - mix.differing:
            heapq.heappush(self._agenda, step._replace(due_ms=due, number=self._number(), longer=60))

    @staticmethod
    def _differs(step: Step) -> bool:
        """Only an answered call changes visibly when it gets longer."""
        return step.name == "completed" and isinstance(step.session, Call) and step.session.status == "completed"

    def _poison(self, now_ms: int) -> Message:
        reason, make = self._rng.choice(self._recipes)
        account = self._rng.choice(self._accounts).id
        number = self._number()
        kitchen = Kitchen(self._rng, now_ms, self._partitions, account, self._dear, f"{self._run}-{number}")
        record = make(kitchen)
        self.expected.poison.append((record, reason))
        return record
