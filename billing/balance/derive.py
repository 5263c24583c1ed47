"""Deriving an account whose balance is unknown from the ledger, in a step that only its partition's owner can do.

An account is unknown since usage of it was passed, its entries had a gap, or a number left its bounds. Everything
below its offset D was applied or passed, so the ledger's record as of D takes its place: accepted only while D has
not moved and no newer entry has been seen. Holds that were passed since it is unknown come back from the log. See
"Deriving" in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import structlog

from billing.balance import metrics
from billing.balance.calls import Functions, Trouble
from billing.balance.passed import MOST_PASSED, PassedHolds, Span
from billing.balance.records import SAFE, AccountRecord, HoldRecord, UnknownRecord, pack
from billing.balance.snapshot import AccountSnapshot, LedgerLagging, LedgerUnavailable, LedgerView
from billing.stream.sink import Owner
from billing.usage.ops import session_key

log = structlog.get_logger(__name__)

WAIT_S = 5.0  # how long the owner may wait for the ledger while it holds the partition
POLL_S = 0.1
BACKOFF_S = 10.0
UNPRICED_S = 2.0  # the catalogue does not list the account yet; what was passed has to be read again
CHUNK = 1000  # sessions of one call
REMEMBERED = 10_000  # accounts whose last attempt is remembered


@dataclass(slots=True)
class _Attempt:
    offset: int
    not_before_s: float


Outcome: TypeAlias = str  # derived, moved, lagging, unpriced, timeline, overflow, unavailable


class Deriver:
    """Remembers what was tried, so that an account that cannot be derived now does not take all the owner's time."""

    def __init__(
        self,
        functions: Functions,
        view: LedgerView,
        passed: PassedHolds | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._functions = functions
        self._view = view
        self._passed = passed
        self._clock = clock
        self._attempts: dict[tuple[int, str], _Attempt] = {}

    async def derive(
        self,
        owner: Owner,
        partition: int,
        incarnation: str,
        log_time_ms: int,
        accounts: Sequence[tuple[str, UnknownRecord]],
    ) -> Trouble | None:
        """Try these accounts for at most WAIT_S altogether. Returns the store's refusal, if there was one."""
        until_s = self._clock() + WAIT_S
        generation_ms = self._functions.keys.generation_ms
        since_ms = max(0, (log_time_ms // generation_ms - 2) * generation_ms)
        due = [(account, unknown) for account, unknown in accounts if self._due((partition, account))]
        passed = _Passed(self._passed, partition, {name: Span(why.first, why.offset) for name, why in due})
        step = _Step(self._functions, self._view, passed, owner, partition, incarnation, since_ms)
        for account, unknown in due:
            if self._clock() >= until_s:
                break
            attempt = self._attempts.get((partition, account))
            moved = attempt is not None and attempt.offset < unknown.offset
            outcome = await self._try(step, account, unknown, until_s if moved else 0.0)
            if not isinstance(outcome, str):
                return outcome
            metrics.DERIVATIONS.labels(outcome).inc()
            if outcome == "timeline":
                log.error("balance.derive_refused", partition=partition, reason=outcome)
            self._remember((partition, account), unknown.offset, outcome, moved)
        return None

    def _due(self, account: tuple[int, str]) -> bool:
        attempt = self._attempts.get(account)
        return attempt is None or self._clock() >= attempt.not_before_s

    async def _try(
        self, step: _Step, account: str, unknown: UnknownRecord, until_s: float
    ) -> Outcome | Trouble:
        """Where D moved since the last attempt, wait for the ledger: nothing moves while the owner is here."""
        while True:
            outcome = await step.once(account, unknown)
            if outcome != "lagging" or self._clock() + POLL_S >= until_s:
                return outcome
            await asyncio.sleep(POLL_S)

    def _remember(self, key: tuple[int, str], offset: int, outcome: Outcome, moved: bool) -> None:
        if outcome == "derived":
            self._attempts.pop(key, None)
            return
        soon = outcome == "moved" or (outcome == "lagging" and not moved)
        if len(self._attempts) >= REMEMBERED:
            self._attempts.clear()
        pause_s = 0.0 if soon else UNPRICED_S if outcome == "unpriced" else BACKOFF_S
        self._attempts[key] = _Attempt(offset, self._clock() + pause_s)


class _Passed:
    """Passed holds of the accounts of one round, read once, when the first of them can be derived."""

    def __init__(self, log_of: PassedHolds | None, partition: int, spans: Mapping[str, Span]) -> None:
        self._log = log_of
        self._partition = partition
        self._spans = spans
        self._found: Mapping[str, Mapping[str, HoldRecord]] | None = None

    async def of(self, account: str) -> Mapping[str, HoldRecord] | Outcome:
        if self._log is None or self._spans[account].first >= self._spans[account].end:
            return {}
        if self._found is None:
            self._found = await self._log.read(self._partition, self._spans)
        if self._found is None:
            return "unavailable"
        return self._found.get(account, "unpriced")


@dataclass(frozen=True, slots=True)
class _Step:
    functions: Functions
    view: LedgerView
    passed: _Passed
    owner: Owner
    partition: int
    incarnation: str
    since_ms: int

    async def once(self, account: str, unknown: UnknownRecord) -> Outcome | Trouble:
        try:
            async with asyncio.timeout(WAIT_S):
                answer = await self.view.derive(account, self.partition, unknown.offset, self.since_ms)
                if isinstance(answer, LedgerUnavailable):
                    return "unavailable"
                if isinstance(answer, LedgerLagging) or answer.ledger_seq < unknown.seen:
                    return "lagging"
                if not _fits(answer.record(held=0)):
                    return "overflow"
                holds = await self.passed.of(account)
        except TimeoutError:
            return "unavailable"
        if isinstance(holds, str):
            return holds
        return await self._write(account, unknown.offset, answer, holds)

    async def _write(
        self, account: str, offset: int, snapshot: AccountSnapshot, holds: Mapping[str, HoldRecord]
    ) -> Outcome | Trouble:
        sessions = [session_key(kind, account, session) for kind, session in snapshot.settled]
        for first in range(0, len(sessions), CHUNK):
            chunk = pack(sessions[first : first + CHUNK])
            reply = await self._call("settled", account, snapshot.timeline, chunk)
            if reply != "applied":
                return reply
        packed = snapshot.record(held=0).pack()  # the function keeps the holds that are open
        reply = await self._call("derive", account, offset, snapshot.timeline, packed, _flat(holds))
        return "derived" if reply == "applied" else reply

    async def _call(self, name: str, *args: str | bytes | int) -> Outcome | Trouble:
        keys = self.functions.keys.all(self.partition, self.incarnation)
        reply = await self.functions.call(
            name, keys, self.incarnation, self.owner.epoch, self.owner.nonce, *args
        )
        return cast(str, reply[0]) if isinstance(reply, list) else reply


def _fits(record: AccountRecord) -> bool:
    """Whether the store can hold the account's numbers exactly. The ledger counts further; such an account stays
    unknown, and only that one: the function would refuse its record as a bug, which ends the process."""
    numbers = (record.credit, record.used, record.credit_limit, record.recharge_below or 0, record.excluded)
    return all(-SAFE < number < SAFE for number in numbers)


def _flat(holds: Mapping[str, HoldRecord]) -> bytes:
    """Holds as the function takes them; where there are too many, those with the longest leases."""
    kept = list(holds.items())
    if len(kept) > MOST_PASSED:
        log.warning("balance.holds_left_out", count=len(kept) - MOST_PASSED)
        kept = sorted(kept, key=lambda found: found[1].lease_end_ms)[-MOST_PASSED:]
    return pack([part for key, hold in kept for part in (key, hold.amount, hold.elapsed, hold.lease_end_ms)])
